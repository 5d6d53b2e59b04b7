"""e3nn: TensorProduct with generated code, then a scatter-sum, as nequip runs it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import e3nn.nn
import e3nn.o3
import torch
from e3nn import o3
from torch import Tensor

from bench.problems import ConvCase, HarmonicsCase, ModuleCase
from nequip_fast.dtypes import default_dtype
from nequip_fast.nn import TensorProductConv
from nequip_fast.o3 import SphericalHarmonics
from nequip_fast.ops import Graph

NAME = "e3nn"
FAMILY = "e3nn"


def missing() -> str | None:
    """Never: e3nn is a dependency."""
    return None


class TensorProductScatter(torch.nn.Module):
    """e3nn's product and a scatter-sum behind the interface of our TensorProductConv."""

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_sh: o3.Irreps,
        irreps_out: o3.Irreps,
        instructions: list[tuple[int, int, int]],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        paths = [(*instruction, "uvu", True) for instruction in instructions]
        with default_dtype(dtype):
            self.product = o3.TensorProduct(
                irreps_in, irreps_sh, irreps_out, paths, shared_weights=False, internal_weights=False
            )

    def forward(self, x: Tensor, edge_attrs: Tensor, edge_weights: Tensor, graph: Graph) -> Tensor:
        """[N, irreps_in.dim] -> [N, irreps_out.dim]."""
        messages = self.product(x[graph.sender], edge_attrs, edge_weights)
        return messages.new_zeros(graph.num_nodes, messages.shape[1]).index_add(0, graph.receiver, messages)


def conv(case: ConvCase, dtype: torch.dtype, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Gather, TensorProduct, scatter-sum."""
    module = TensorProductScatter(*case.irreps(), dtype).to(device)
    graph = Graph(*(t.to(device) for t in case.graph()))
    return lambda x, y, w: module(x, y, w, graph)


def harmonics(case: HarmonicsCase, dtype: torch.dtype, device: str) -> Callable[[Tensor], Tensor]:
    """e3nn's generated polynomials; the module is built once, as in a model."""
    return o3.SphericalHarmonics(list(range(case.l_max + 1)), True, "component").to(device)


def module(case: ModuleCase, dtype: torch.dtype, device: str) -> torch.nn.Module:
    """The module itself."""
    with default_dtype(dtype):
        return case.build(e3nn).to(device)


def on_e3nn(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of one of our models whose convolutions and harmonics are e3nn's; same weights, same function."""
    swapped = copy.deepcopy(model)
    dtype = next(swapped.parameters()).dtype
    for parent in list(swapped.modules()):
        for name, child in parent.named_children():
            if isinstance(child, TensorProductConv):
                product = child.problem
                instructions = _instructions(child)
                assert len(instructions) == len(product.paths)
                replacement: torch.nn.Module = TensorProductScatter(
                    child.irreps_in1, child.irreps_in2, child.irreps_out, instructions, dtype
                )
            elif isinstance(child, SphericalHarmonics):
                replacement = o3.SphericalHarmonics(child.irreps_out, child.normalize, child.normalization)
            else:
                continue
            setattr(parent, name, replacement)
    return swapped


def _instructions(conv: TensorProductConv) -> list[tuple[int, int, int]]:
    """Back from offsets to positions in the irreps."""
    starts = [
        {s.start: i for i, s in enumerate(irreps.slices()) if s.stop > s.start}
        for irreps in (conv.irreps_in1, conv.irreps_in2, conv.irreps_out)
    ]
    return [(starts[0][p.x], starts[1][p.y], starts[2][p.out]) for p in conv.problem.paths]
