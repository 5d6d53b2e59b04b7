"""Drop-in for ``e3nn.nn.FullyConnectedNet``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from e3nn import nn
from e3nn.util.jit import compile_mode
from torch import Tensor

from nequip_fast.adoption import Adoptable
from nequip_fast.errors import InputError
from nequip_fast.nn.activation_names import NO_KERNEL, named_activations
from nequip_fast.o3.errors import ShapeError
from nequip_fast.ops import GateProblem, GateSegment, MlpLayer, MlpProblem, gate, mlp


@compile_mode("unsupported")
class FullyConnectedNet(Adoptable, nn.FullyConnectedNet):
    """``e3nn.nn.FullyConnectedNet``: a perceptron without biases, its activations scaled to unit second moment.

    :func:`~nequip_fast.ops.mlp.mlp` where the activation is one of :data:`nequip_fast.ops.gate.ACTIVATIONS`, e3nn's own
    code otherwise. Arguments, attributes and ``repr`` are inherited. Shapes: [..., hs[0]] -> [..., hs[-1]].
    """

    def __init__(
        self,
        hs: Sequence[int],
        act: Callable[[Tensor], Tensor] | None = None,
        variance_in: int = 1,
        variance_out: int = 1,
        out_act: bool = False,
    ) -> None:
        super().__init__(hs, act, variance_in, variance_out, out_act)
        self._derive(by_value=False)

    def _prepare(self) -> None:
        if not self._derive(by_value=True):
            raise InputError(NO_KERNEL)

    def _derive(self, by_value: bool) -> bool:
        """False if the activation has no kernel."""
        layers: list[Any] = list(self)
        self._problem: MlpProblem | None = None
        self._last: GateProblem | None = None  # what `out_act` asks for
        named = named_activations([layer.act for layer in layers], by_value)
        if named is None or len(layers) < 2 or not all(layer.weight.numel() for layer in layers):
            return named is not None
        described, constant = [], 1.0  # of the activation below: the layer above multiplies by it
        for layer, (name, factor) in zip(layers, named, strict=True):
            described.append(MlpLayer(layer.weight.shape[1], name, constant / (layer.h_in * layer.var_in) ** 0.5))
            constant = factor * layer.var_out**0.5
        width, name, factor = described.pop()
        if name == "identity":
            factor *= constant
        else:
            self._last = GateProblem([GateSegment(0, -1, 0, width, 1, name, constant)], width)
        self._problem = MlpProblem(layers[0].weight.shape[0], [*described, MlpLayer(width, "identity", factor)])
        return True

    def forward(self, x: Tensor, first: Tensor | None = None) -> Tensor:
        """See the class for shapes; ``first``, which e3nn does not have, as for :func:`~nequip_fast.ops.mlp.mlp`.

        Raises:
            ShapeError: the last dimension of x is not ``hs[0]``.
        """
        if self._problem is None:
            return super().forward(x if first is None else x.index_select(0, first))
        if x.dim() == 0 or x.shape[-1] != self._problem.dim_in:
            raise ShapeError(f"x must be [..., {self._problem.dim_in}], got {list(x.shape)}")
        layers: list[Any] = list(self)
        x = mlp(x, [layer.weight for layer in layers], self._problem, first)
        return x if self._last is None else gate(x, self._last)
