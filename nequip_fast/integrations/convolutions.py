"""The convolutions of nequip and SevenNet on the operator :func:`nequip_fast.ops.conv`, for :func:`accelerate`.

Both packages gather features, multiply with e3nn's ``TensorProduct`` and scatter the products. That product stays where
it is, with its buffers, for the state dict; its instructions say what to compute.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nequip_fast.adoption import Adoptable
from nequip_fast.errors import InputError
from nequip_fast.ops import ConvProblem, Graph, conv


class TensorProductScatter(Adoptable, nn.Module):
    """nequip's module of this name."""

    # nequip writes it into the files of nequip-compile, and imports it before it loads one
    _nequip_custom_ops_libs = ("nequip_fast",)
    tp: Any
    problem: ConvProblem

    def _prepare(self) -> None:
        self.problem = problem_of(self.tp)

    def forward(self, x: Tensor, edge_attr: Tensor, edge_weight: Tensor, edge_dst: Tensor, edge_src: Tensor) -> Tensor:
        """x [N, in], edge_attr [E, sh], edge_weight [E, weights] of edges ``edge_src`` → ``edge_dst`` → [N, out]."""
        graph = Graph.from_ends(edge_dst, edge_src, x.shape[0])
        return conv(x, edge_attr, edge_weight, graph, self.problem)


class IrrepsConvolution(Adoptable, nn.Module):
    """SevenNet's module of this name, in one process or, with ghost atoms, in one of many."""

    parts_in_use = ("weight_nn",)
    convolution: Any
    weight_nn: Any
    denominator: Tensor
    key_x: str
    key_filter: str
    key_weight_input: str
    key_edge_idx: str
    is_parallel: bool
    problem: ConvProblem

    def _prepare(self) -> None:
        if self.convolution is None:
            raise InputError("it has no layers yet; build the model first")
        self.problem = problem_of(self.convolution)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """As SevenNet's: reads edges, features and filters of ``data`` and writes the features."""
        weight = self.weight_nn(data[self.key_weight_input])
        x = data[self.key_x]
        if self.is_parallel:
            x = torch.cat([x, data["x_ghost"]])
        graph = Graph.from_edge_index(data[self.key_edge_idx], x.shape[0])
        x = conv(x, data[self.key_filter], weight, graph, self.problem).div(self.denominator)
        data[self.key_x] = torch.tensor_split(x, data["nlocal"])[0] if self.is_parallel else x
        return data


def problem_of(product: Any) -> ConvProblem:
    """The convolution with an ``e3nn.o3.TensorProduct``, whose weights are a row for each edge.

    Raises:
        InputError: it has weights of its own, or an instruction that is not 'uvu'.
    """
    if product.shared_weights:
        raise InputError("its product has the same weights for all edges")
    return ConvProblem.from_irreps(
        str(product.irreps_in1),
        str(product.irreps_in2),
        str(product.irreps_out),
        # e3nn has taken the square root of these, and normalised them
        [(*i[:5], i.path_weight**2) for i in product.instructions],
        irrep_normalization="none",
        path_normalization="none",
    )
