"""The convolution of NequIP as a module: weights from outside, paths fixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.ops import ConvProblem, Graph, conv


class TensorProductConv(torch.nn.Module):
    """Gather → 'uvu' tensor product → sum over receivers, as one operator without parameters.

    Equals e3nn's ``TensorProduct(irreps_in1, irreps_in2, irreps_out, [(i1, i2, i_out, "uvu", True)],
    shared_weights=False)`` on the gathered features, followed by a scatter-sum.

    Args:
        irreps_in1: node features, [N, irreps_in1.dim].
        irreps_in2: edge attributes, multiplicity 1 each, [E, irreps_in2.dim].
        irreps_out: one entry for each output of the instructions, in any order.
        instructions: ``(i_in1, i_in2, i_out)``; the weights [E, weight_numel] follow their order.
    """

    def __init__(
        self,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        instructions: Sequence[tuple[int, int, int]],
    ) -> None:
        super().__init__()
        self.irreps_in1 = o3.Irreps(irreps_in1)
        self.irreps_in2 = o3.Irreps(irreps_in2)
        self.irreps_out = o3.Irreps(irreps_out)
        self.problem = ConvProblem.from_irreps(self.irreps_in1, self.irreps_in2, self.irreps_out, instructions)

    @property
    def weight_numel(self) -> int:
        """Weights per edge."""
        return self.problem.dim_w

    def forward(self, x: Tensor, edge_attrs: Tensor, edge_weights: Tensor, graph: Graph) -> Tensor:
        """x [N, in1.dim], edge_attrs [E, in2.dim], edge_weights [E, weight_numel] → [N, irreps_out.dim]."""
        return conv(x, edge_attrs, edge_weights, graph, self.problem)

    def extra_repr(self) -> str:
        """Irreps and the number of paths."""
        irreps = f"{self.irreps_in1} x {self.irreps_in2} -> {self.irreps_out}"
        return f"{irreps} | {len(self.problem.paths)} paths | {self.weight_numel} weights"
