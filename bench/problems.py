"""The one list of benchmark cases: what is computed, and on which shapes.

A shape is listed once, under the name of the model best known for it; ``about`` says whose shape it is and which
others share it. Convolutions come from NequIP's presets, SevenNet, the NequIP paper, and the problem lists of
OpenEquivariance (``benchmark/problems.py``) and FlashTP (``4_32_{1..5}_p``). Edges are sorted by receiver,
``neighbours`` each, senders drawn at random among 200 nodes around, as in a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from e3nn import o3

from nequip_fast.ops import ConvProblem, Graph

_LOCALITY = 200  # senders of a node lie within this many node numbers
# Edges a convolution whose messages are up to so wide gets. In float64 e3nn holds messages of 0.5 GB at the end of the
# first two lines, and ten times that for second derivatives.
_EDGES = {6_000: 10_000, 20_000: 2_000, 10**9: 500}
_ROWS, _FEWER_ROWS = 10_000, 2_000


def _random(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[torch.Tensor]:
    """Leaves of all shapes but the last, and a cotangent of the last; the same in every run."""
    generator = torch.Generator().manual_seed(1)
    *leaves, cotangent = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return [*(leaf.requires_grad_() for leaf in leaves), cotangent]


@dataclass(frozen=True)
class ConvCase:
    """One convolution: irreps of the features, of the harmonics, irreps kept, size of the graph."""

    name: str
    about: str
    irreps_in: str
    irreps_sh: str
    irreps_out: str
    edges: int
    neighbours: int
    kind = "conv"

    def irreps(self) -> tuple[o3.Irreps, o3.Irreps, o3.Irreps, list[tuple[int, int, int]]]:
        """(features, harmonics, one output per path, instructions)."""
        features, harmonics = o3.Irreps(self.irreps_in), o3.Irreps(self.irreps_sh)
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

    def tensors(self, dtype: torch.dtype) -> list[torch.Tensor]:
        """x, y, w, and a cotangent of the output."""
        problem, nodes = self.problem(), self.graph().num_nodes
        rows = (nodes, problem.dim_x), (self.edges, problem.dim_y), (self.edges, problem.dim_w)
        return _random([*rows, (nodes, problem.dim_out)], dtype)

    def quick(self) -> ConvCase:
        """A tenth of the edges."""
        return replace(self, edges=max(1, self.edges // 10))


@dataclass(frozen=True)
class HarmonicsCase:
    """Spherical harmonics of ``edges`` vectors up to ``l_max``, normalised."""

    name: str
    about: str
    l_max: int
    edges: int
    kind = "harmonics"

    def tensors(self, dtype: torch.dtype) -> list[torch.Tensor]:
        """Vectors, and a cotangent of the harmonics."""
        return _random([(self.edges, 3), (self.edges, (self.l_max + 1) ** 2)], dtype)

    def quick(self) -> HarmonicsCase:
        """A tenth of the edges."""
        return replace(self, edges=max(1, self.edges // 10))


@dataclass(frozen=True)
class ModuleCase:
    """One module of e3nn's API, built by name and arguments from e3nn and from nequip_fast alike.

    ``inputs`` are the irreps of the arguments of its ``forward``; weights the module does not hold come last, one
    set for every row. ``distinct`` rows of the second input are different, all where it is None.
    """

    name: str
    about: str
    kind: str
    module: str
    arguments: tuple[Any, ...]
    inputs: tuple[str, ...]
    rows: int
    distinct: int | None = None

    def build(self, package: Any) -> torch.nn.Module:
        """The module, from ``package.o3`` or ``package.nn``, in the default dtype and the same weights each time."""
        namespace, name = self.module.split(".")
        arguments = dict(self.arguments[-1]) if self.arguments and isinstance(self.arguments[-1], dict) else {}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            positional = self.arguments[:-1] if arguments else self.arguments
            return getattr(getattr(package, namespace), name)(*positional, **arguments)

    def tensors(self, dtype: torch.dtype, weights: int, dim_out: int) -> list[torch.Tensor]:
        """The inputs, ``weights`` external weights a row if any, and a cotangent of the output."""
        widths = [o3.Irreps(irreps).dim for irreps in self.inputs] + ([weights] if weights else [])
        tensors = _random([(self.rows, width) for width in (*widths, dim_out)], dtype)
        if self.distinct is not None:
            rows = torch.arange(self.rows) % self.distinct
            tensors[1] = tensors[1].detach()[rows].requires_grad_()
        return tensors

    def quick(self) -> ModuleCase:
        """A tenth of the rows."""
        return replace(self, rows=max(2, self.rows // 10))


@dataclass(frozen=True)
class ModelCase:
    """Energy and forces of a preset on a box of water at 1 g/cm³ with ``molecules`` molecules, cutoff in Å."""

    name: str
    about: str
    preset: str
    molecules: int
    r_max: float
    kind = "model"

    def quick(self) -> ModelCase:
        """A smaller box."""
        return replace(self, molecules=max(8, self.molecules // 8))


Case = ConvCase | HarmonicsCase | ModuleCase | ModelCase


def _natural(muls: Sequence[int], parity: str = "eo") -> str:
    """Degrees 0, 1, … of the parity of a harmonic, or of even parity only."""
    return "+".join(f"{mul}x{l}{parity[l % 2]}" for l, mul in enumerate(muls))


def _full(mul: int, l_max: int) -> str:
    """Every degree in both parities."""
    return "+".join(f"{mul}x{l}{p}" for l in range(l_max + 1) for p in "eo")


def _layer(
    name: str, about: str, irreps: str, l_max: int, *, out: str = "", parity: str = "eo", edges: int = 0
) -> ConvCase:
    """A layer whose output keeps the irreps of its input, or those of ``out``; as many edges as e3nn has memory for."""
    harmonics = _natural([1] * (l_max + 1), parity)
    case = ConvCase(f"conv-{name}", about, irreps, harmonics, out or irreps, edges or 1, 8 if edges else 50)
    if edges:
        return case
    fitting = next(count for width, count in _EDGES.items() if case.problem().dim_out <= width)
    return replace(case, about=f"{about}; {fitting:,} edges", edges=fitting)


_PRESETS = {"S": [128, 64], "M": [128, 64, 32], "L": [128, 64, 32, 32], "XL": [320, 96, 64, 32, 32]}
_M, _L = _natural(_PRESETS["M"]), _natural(_PRESETS["L"])

CONV = [
    _layer("S", "NequIP preset S", _natural(_PRESETS["S"]), 1),
    _layer("M", "NequIP preset M", _M, 2),
    _layer("L", "NequIP preset L; nequip-oam-l and nequix-mp-1, main layers", _L, 3),
    _layer("XL", "NequIP preset XL", _natural(_PRESETS["XL"]), 4),
    _layer("SevenNet-0", "SevenNet-0, main layers; no parity", _natural(_PRESETS["M"], "ee"), 2, parity="ee"),
    _layer("l3i5", "SevenNet-l3i5, main layers; no parity", _natural(_PRESETS["L"], "ee"), 3, parity="ee"),
    _layer("l3i5-first", "SevenNet-l3i5, first layer", "128x0e", 3, out=_natural([1] * 4, "ee"), parity="ee"),
    _layer("oam-l-first", "nequip-oam-l, first layer", "32x0e", 3, out=_L),
    _layer("oam-l-last", "nequip-oam-l, nequix-mp-1, SevenNet-l3i5, last layer", _L, 3, out="0e"),
    _layer("nequix-first", "nequix-mp-1, first layer; 89 channels", "89x0e", 3, out=_natural([1] * 4)),
    _layer("mace-medium", "MACE medium", "128x0e+128x1o", 3, out=_natural([1] * 3)),
    _layer("mace-large", "MACE large", _natural([128] * 3), 3, out=_natural([1] * 4)),
    _layer("32-l1-parity", "NequIP water (OpenEquivariance), FlashTP", _full(32, 1), 1),
    _layer("32-l2-parity", "NequIP paper, lips (OpenEquivariance), FlashTP", _full(32, 2), 2),
    _layer("32-l3-parity", "FlashTP", _full(32, 3), 3),
    _layer("32-l4-parity", "FlashTP", _full(32, 4), 4),
    _layer("32-l5-parity", "FlashTP; beyond the compiled degrees", _full(32, 5), 5),
    _layer("64-l1-parity", "NequIP revMD17 aspirin (OpenEquivariance)", _full(64, 1), 1),
    _layer("64-l2-parity", "NequIP revMD17 toluene (OpenEquivariance)", _full(64, 2), 2),
    _layer("64-l3-parity", "NequIP paper, revMD17 benzene (OpenEquivariance)", _full(64, 3), 3),
    _layer("molecule", "32 × l ≤ 2 on a molecule: 400 edges, 8 neighbours", _natural([32] * 3), 2, edges=400),
]

HARMONICS = [HarmonicsCase(f"harmonics-l{l}", f"{_ROWS:,} vectors", l, _ROWS) for l in (*range(1, 9), 11)]


def _self_connections() -> list[ModuleCase]:
    """x ⊗ embedding of the type → features and the scalars of the gate, as the presets have it."""
    cases = []
    for preset in "SML":
        muls = _PRESETS[preset]
        irreps_in, irreps_out = _natural(muls), _natural([muls[0] + sum(muls[1:]), *muls[1:]])
        for atoms in (192, 1_000):
            for distinct, label in ((2, ""), (None, "-distinct")):
                about = "attributes of every atom different" if label else "attributes of two types"
                cases.append(
                    ModuleCase(
                        f"self-connection-{preset}-{atoms}{label}", f"preset {preset}, {atoms:,} atoms, {about}",
                        f"self-connection{label}", "o3.FullyConnectedTensorProduct", (irreps_in, "32x0e", irreps_out),
                        (irreps_in, "32x0e"), atoms, distinct,
                    )
                )  # fmt: skip
    return cases


def _products() -> list[ModuleCase]:
    """Tensor products without a graph, one case a connection mode."""
    external = {"shared_weights": False, "internal_weights": False}
    in1, in2, out, paths = ConvCase("", "", _M, _natural([1] * 3), _M, 1, 1).irreps()
    uvu = (str(in1), str(in2), str(out), [(*path, "uvu", True) for path in paths], external)
    many, some, few = (_natural([mul] * 3) for mul in (64, 16, 8))
    diffdock = "10x1o+10x1e+48x0e+48x0o"
    cases = [
        ("uvu", "preset M without the graph, weights a row", "TensorProduct", uvu, (str(in1), str(in2)), _ROWS),
        ("uuu", "64 channels, l ≤ 2", "ElementwiseTensorProduct", (many, many), (many, many), _ROWS),
        ("uvuv", "8 × 8 channels, l ≤ 2", "FullTensorProduct", (few, few), (few, few), 1_000),
        ("square", "16 channels, l ≤ 2, weighted", "TensorSquare", (some, some), (some,), 1_000),
    ]  # fmt: skip
    for l in (1, 2):
        sh = _natural([1] * (l + 1))
        cases.append(
            (f"diffdock-l{l}", f"DiffDock, l ≤ {l}: uvw, weights a row", "FullyConnectedTensorProduct",
             (diffdock, sh, diffdock, external), (diffdock, sh), _FEWER_ROWS)
        )  # fmt: skip
    return [
        ModuleCase(f"product-{name}", f"{about}; {rows:,} rows", "product", f"o3.{module}", arguments, inputs, rows)
        for name, about, module, arguments, inputs, rows in cases
    ]


def _layers_of_atoms() -> list[ModuleCase]:
    """Linear and Gate of preset M on 1,000 atoms."""
    _, _, messages, _ = ConvCase("", "", _M, _natural([1] * 3), _M, 1, 1).irreps()
    sums, gated = str(messages.sort().irreps.simplify()), _natural([128 + 96, 64, 32])
    gate = ("128x0e", [torch.nn.functional.silu], "96x0e", [torch.nn.functional.silu], "64x1o+32x2e")
    return [
        ModuleCase("linear-M-1", "preset M, features to features; 1,000 atoms", "linear", "o3.Linear", (_M, _M), (_M,),
                   1_000),
        ModuleCase("linear-M-2", "preset M, sums of messages to gate; 1,000 atoms", "linear", "o3.Linear",
                   (sums, gated), (sums,), 1_000),
        ModuleCase("gate-M", "preset M; 1,000 atoms", "gate", "nn.Gate", gate, (gated,), 1_000),
    ]  # fmt: skip


def _radial_networks() -> list[ModuleCase]:
    """From radial functions to the weights of a layer, with the widths of presets and of SevenNet-0."""
    networks = {"S": [8, 128, 192], "M": [8, 128, 768], "SevenNet-0": [8, 64, 64, 960]}
    return [
        ModuleCase(f"radial-{name}", f"{name}, main layers; {_ROWS:,} edges", "radial-network", "nn.FullyConnectedNet",
                   (widths, torch.nn.functional.silu), ("8x0e",), _ROWS)
        for name, widths in networks.items()
    ]  # fmt: skip


MODULES = [*_self_connections(), *_products(), *_layers_of_atoms(), *_radial_networks()]
MODELS = [
    ModelCase(f"model-{preset}", f"preset {preset}, 64 molecules of water, cutoff 5 Å", preset, 64, 5.0)
    for preset in "SM"
]

CASES: dict[str, Case] = {case.name: case for cases in (CONV, MODULES, HARMONICS, MODELS) for case in cases}
