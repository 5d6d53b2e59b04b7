"""The one list of benchmark cases: what is computed, and on which shapes.

Convolutions are the middle layers of models people run; their names are those of the models. Edges are
sorted by receiver, ``neighbours`` each, senders drawn at random among 200 nodes around, as in a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from e3nn import o3

from nequip_fast.ops import ConvProblem, Graph

_LOCALITY = 200  # senders of a node lie within this many node numbers


@dataclass(frozen=True)
class ConvCase:
    """One convolution: irreps of the features, degree of the harmonics, irreps kept, size of the graph."""

    name: str
    irreps_in: str
    l_max: int
    irreps_out: str
    edges: int
    neighbours: int

    def irreps(self) -> tuple[o3.Irreps, o3.Irreps, o3.Irreps, list[tuple[int, int, int]]]:
        """(features, harmonics, one output per path, instructions)."""
        features, harmonics = o3.Irreps(self.irreps_in), o3.Irreps.spherical_harmonics(self.l_max)
        kept = [ir for _, ir in o3.Irreps(self.irreps_out)]
        outputs, instructions = [], []
        for i, (mul, ir1) in enumerate(features):
            for j, (_, ir2) in enumerate(harmonics):
                for ir3 in ir1 * ir2:
                    if ir3 in kept:
                        instructions.append((i, j, len(outputs)))
                        outputs.append((mul, ir3))
        return features, harmonics, o3.Irreps(outputs), instructions

    def problem(self) -> ConvProblem:
        """The same as paths."""
        return ConvProblem.from_irreps(*self.irreps())

    def graph(self) -> Graph:
        """Sorted edges, the same for every peer and every run."""
        generator = torch.Generator().manual_seed(0)
        nodes = max(1, self.edges // self.neighbours)
        receiver = (torch.arange(self.edges) * nodes) // max(self.edges, 1)
        offset = torch.randint(-_LOCALITY // 2, _LOCALITY // 2, (self.edges,), generator=generator)
        return Graph.from_edge_index(torch.stack([receiver, (receiver + offset) % nodes]), nodes)

    def tensors(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """x, y, w (requiring gradients) and a cotangent of the output."""
        generator = torch.Generator().manual_seed(1)
        problem, nodes = self.problem(), self.graph().num_nodes
        shapes = (nodes, problem.dim_x), (self.edges, problem.dim_y), (self.edges, problem.dim_w)
        x, y, w = (torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes)
        return x, y, w, torch.randn(nodes, problem.dim_out, generator=generator, dtype=dtype)

    def quick(self) -> ConvCase:
        """A tenth of the edges."""
        return replace(self, edges=max(1, self.edges // 10))


@dataclass(frozen=True)
class HarmonicsCase:
    """Spherical harmonics of ``edges`` vectors up to ``l_max``, normalised."""

    name: str
    l_max: int
    edges: int

    def tensors(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors (requiring gradients) and a cotangent."""
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(self.edges, 3, generator=generator, dtype=dtype).requires_grad_()
        return vectors, torch.randn(self.edges, (self.l_max + 1) ** 2, generator=generator, dtype=dtype)

    def quick(self) -> HarmonicsCase:
        """A tenth of the edges."""
        return replace(self, edges=max(1, self.edges // 10))


@dataclass(frozen=True)
class ModelCase:
    """Energy and forces of a preset on a box of water at 1 g/cm³ with ``molecules`` molecules, cutoff in Å."""

    name: str
    preset: str
    molecules: int
    r_max: float

    def quick(self) -> ModelCase:
        """A smaller box."""
        return replace(self, molecules=max(8, self.molecules // 8))


def _natural(muls: Sequence[int]) -> str:
    return "+".join(f"{mul}x{l}{'oe'[l % 2 == 0]}" for l, mul in enumerate(muls))


def _full(mul: int, l_max: int) -> str:
    return "+".join(f"{mul}x{l}{p}" for l in range(l_max + 1) for p in "eo")


def _layer(name: str, irreps: str, l_max: int, edges: int = 10_000, neighbours: int = 50) -> ConvCase:
    return ConvCase(name, irreps, l_max, irreps, edges, neighbours)


CONV = [
    _layer("conv-S", _natural([128, 64]), 1),
    _layer("conv-M", _natural([128, 64, 32]), 2),
    _layer("conv-L", _natural([128, 64, 32, 32]), 3),
    _layer("conv-XL", _natural([320, 96, 64, 32, 32]), 4, edges=2_000),
    _layer("conv-32-l2-parity", _full(32, 2), 2),
    _layer("conv-64-l3-parity", _full(64, 3), 3, edges=2_000),
    ConvCase("conv-mace-large", "128x0e+128x1o+128x2e", 3, "128x0e+128x1o+128x2e+128x3o", 4_000, 50),
    _layer("conv-molecule", _natural([32, 32, 32]), 2, edges=400, neighbours=8),
]
HARMONICS = [HarmonicsCase(f"harmonics-l{l}", l, 10_000) for l in (1, 2, 3, 4)]
MODELS = [ModelCase("model-S", "S", 64, 5.0), ModelCase("model-M", "M", 64, 5.0)]

CASES: dict[str, ConvCase | HarmonicsCase | ModelCase] = {
    case.name: case for cases in (CONV, HARMONICS, MODELS) for case in cases
}
