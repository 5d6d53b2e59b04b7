"""The multilayer perceptron used for radial weights and for the readout."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nequip_fast.errors import InputError
from nequip_fast.nn.activation_names import activation
from nequip_fast.ops.gate import ACTIVATIONS
from nequip_fast.ops.mlp import MlpLayer, MlpProblem, mlp


class ScaledLinear(nn.Module):
    """``x @ (W · factor)`` with W of shape (in, out), uniform with unit variance at the start; no bias."""

    def __init__(self, dim_in: int, dim_out: int, factor: float, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(torch.empty(dim_in, dim_out, dtype=dtype).uniform_(-math.sqrt(3), math.sqrt(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight * self.factor)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]} -> {self.weight.shape[1]}"


class Activation(nn.Module):
    """A plain (not rescaled) activation, by name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        activation(name)  # an unknown name fails here, not in the first forward pass

    def forward(self, x: Tensor) -> Tensor:
        return activation(self.name)(x)

    def extra_repr(self) -> str:
        return self.name


class DeepLinear(nn.Module):
    """A product of weight matrices without nonlinearity in between."""

    def __init__(self, layers: list[ScaledLinear]) -> None:
        super().__init__()
        self.factor = math.prod(layer.factor for layer in layers)
        self.weights = nn.ParameterList([layer.weight for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        return x @ (torch.linalg.multi_dot(list(self.weights)) * self.factor)


class ScalarMLP(nn.Module):
    """Bias-free perceptron on scalars: [N, dim_in] -> [N, dim_out].

    Weights are scaled by ``gain / √fan-in`` with gain 1 in the first layer and √2 after a nonlinearity.

    Args:
        dim_in, dim_out: number of scalars.
        depth: number of hidden layers (0: one linear map).
        width: their width.
        nonlinearity: name, or None for a deep linear network. The strings "None" and "null" mean the identity
            with the gain of a nonlinearity, as in nequip.

    Raises:
        InputError: a layer without channels, or an unknown nonlinearity.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        depth: int = 0,
        width: int | None = None,
        nonlinearity: str | None = "silu",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dims = [dim_in, *[width or 0] * depth, dim_out]
        if min(dims) < 1:
            raise InputError(f"a perceptron with layers of {dims} channels: each needs at least one")
        gain = 1.0 if nonlinearity is None else math.sqrt(2.0)
        layers = [
            ScaledLinear(a, b, (gain if i else 1.0) / math.sqrt(a), dtype) for i, (a, b) in enumerate(pairwise(dims))
        ]
        self.mlp: Any
        self._problem: MlpProblem | None = None  # one matrix, a product of some, an activation without kernel
        if nonlinearity is None and len(layers) > 1:
            self.mlp = DeepLinear(layers)
            return
        modules: list[nn.Module] = [layers[0]]
        for layer in layers[1:]:
            identity = nonlinearity in (None, "None", "null")
            modules += [nn.Identity() if identity else Activation(str(nonlinearity)), layer]
        self.mlp = nn.Sequential(*modules)
        name = "identity" if nonlinearity in (None, "None", "null") else str(nonlinearity)
        if depth and name in ACTIVATIONS:
            names = [name] * depth + ["identity"]
            described = [MlpLayer(b, f, layer.factor) for b, f, layer in zip(dims[1:], names, layers, strict=True)]
            self._problem = MlpProblem(dim_in, described)

    def forward(self, x: Tensor, first: Tensor | None = None) -> Tensor:
        """See the class for shapes; ``first`` as for :func:`~nequip_fast.ops.mlp.mlp`."""
        if self._problem is None:
            return self.mlp(x if first is None else x.index_select(0, first))
        return mlp(x, [layer.weight for layer in list(self.mlp)[::2]], self._problem, first)
