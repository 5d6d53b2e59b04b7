"""The convolution of NequIP as a module: weights from outside, paths fixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.ops import ConvProblem, Graph, conv


class TensorProductConv(torch.nn.Module):
    """Gather → 'uvu' tensor product → sum over receivers, as one operator without parameters.

    Equals e3nn's ``TensorProduct(irreps_in1, irreps_in2, irreps_out, instructions, shared_weights=False)`` on the
    gathered features, followed by a scatter-sum.

    Args:
        irreps_in1: node features, [N, irreps_in1.dim].
        irreps_in2: edge attributes, [E, irreps_in2.dim].
        irreps_out: one entry for each output of the instructions, in any order.
        instructions: e3nn's ``(i_in1, i_in2, i_out, "uvu", has_weight, path_weight)``; the last three may be left out
            ("uvu", True, 1). The weights [E, weight_numel] follow their order, a block [mul_in1, mul_in2] each.
        irrep_normalization: "component" (e3nn's default), "norm" or "none".
        path_normalization: "element" (e3nn's default), "path" or "none".

    Raises:
        InputError: an instruction or a normalization is not as described.
    """

    def __init__(
        self,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        instructions: Sequence[tuple],
        irrep_normalization: str = "component",
        path_normalization: str = "element",
    ) -> None:
        super().__init__()
        self.irreps_in1 = o3.Irreps(irreps_in1)
        self.irreps_in2 = o3.Irreps(irreps_in2)
        self.irreps_out = o3.Irreps(irreps_out)
        self.problem = ConvProblem.from_irreps(
            self.irreps_in1, self.irreps_in2, self.irreps_out, instructions, irrep_normalization, path_normalization
        )

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
