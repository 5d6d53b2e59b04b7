"""``mlp``: a multilayer perceptron without biases, as radial networks are, in one pass over the rows.

    h_0 = x,   h_l = f_l(c_l h_{l-1} A_l)   for the layers l = 1 … L, f_L the identity

with the weights A_l and constants c_l. Compiled for CPUs are the function, its gradient and the derivative of the
gradient by x; hidden layers are computed again in each, tile by tile, and never kept. Elsewhere it is what torch makes
of it, with the activations as :func:`~nequip_fast.ops.gate.gate`.

Rows that are the same by their meaning, as the lengths of an edge and of its reverse, need to be computed but once:
``first`` names for each row the one to take for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nequip_fast.errors import InputError, nearest
from nequip_fast.ops import backend
from nequip_fast.ops.description import describe, read
from nequip_fast.ops.gate import ACTIVATIONS, GateProblem, GateSegment, gate
from nequip_fast.ops.registration import compiled_operator, goes_on_to, one_by_one

_NAMES = list(ACTIVATIONS)
Operator = Callable[..., Any]


class MlpLayer(NamedTuple):
    """``activation(factor · h A)`` with A [width below, width]."""

    width: int
    activation: str
    factor: float


class MlpProblem:
    """All layers of a perceptron: rows [·, dim_in] -> [·, dim_out].

    Raises:
        InputError: fewer than two layers, one without channels, an activation that has no kernel, or one after the last
            layer.
    """

    def __init__(self, dim_in: int, layers: Sequence[MlpLayer]) -> None:
        self.dim_in, self.layers = dim_in, tuple(layers)
        widths = [dim_in, *(layer.width for layer in self.layers)]
        if len(self.layers) < 2 or min(widths) < 1 or self.layers[-1].activation != "identity":
            raise InputError(
                f"mlp: at least two layers of one channel or more are needed, the last without activation, got {widths}"
            )
        for layer in self.layers:
            if layer.activation not in ACTIVATIONS:
                raise InputError(
                    f"mlp: no activation {layer.activation!r}{nearest(layer.activation, ACTIVATIONS)} "
                    f"({', '.join(ACTIVATIONS)})"
                )
        self.dim_out = self.layers[-1].width
        self.shapes = tuple(pairwise(widths))
        self.text = describe((dim_in, self.dim_out), ((w, _NAMES.index(name), c) for w, name, c in self.layers))
        self._gates = tuple(
            None
            if layer.activation == "identity"
            else GateProblem([GateSegment(0, -1, 0, layer.width, 1, layer.activation, 1.0)], layer.width)
            for layer in self.layers
        )

    @classmethod
    def from_text(cls, text: str) -> MlpProblem:
        """The problem whose :attr:`text` this is."""
        (dim_in, _), rows = read(text, 2, len(MlpLayer._fields))
        return cls(dim_in, [MlpLayer(width, _NAMES[code], factor) for width, code, factor in rows])

    def layer_by_layer(self, x: Tensor, weights: Sequence[Tensor], first: Tensor | None = None) -> Tensor:
        """The definition, its activations with kernels where there are some."""
        if first is not None:
            x = x.index_select(0, first)
        for weight, layer, activation in zip(weights, self.layers, self._gates, strict=True):
            x = x @ (weight * layer.factor)
            x = x if activation is None else gate(x, activation)
        return x


def mlp(x: Tensor, weights: Sequence[Tensor], problem: MlpProblem, first: Tensor | None = None) -> Tensor:
    """The perceptron, differentiable to any order; by kernels to the second by x, and by x and the weights.

    Args:
        x: [..., problem.dim_in].
        weights: of each layer [width below, width].
        first: [rows] int64, for x [rows, problem.dim_in]: row e of the result is that of ``x[first[e]]``, which gets
            its gradient too. ``first[e] <= e``, and ``first[first] == first``, as
            :func:`~nequip_fast.ops.graph.first_of_pair` makes it. None: every row its own.

    Returns:
        [..., problem.dim_out].

    Raises:
        InputError: wrong shapes.
    """
    found = [tuple(weight.shape) for weight in weights]
    if x.dim() == 0 or x.shape[-1] != problem.dim_in or found != list(problem.shapes):
        raise InputError(
            f"mlp: x must be [..., {problem.dim_in}] and the weights {list(problem.shapes)}, got {list(x.shape)} and "
            f"{found}"
        )
    if first is not None and (x.dim() != 2 or first.shape != x.shape[:1] or first.dtype != torch.int64):
        raise InputError(
            f"mlp: first must be [rows] int64 for x [rows, {problem.dim_in}], got {list(first.shape)} {first.dtype}"
        )
    if not backend.can("mlp", "cpu", x) or any(weight.dtype != x.dtype for weight in weights):
        return problem.layer_by_layer(x, weights, first)
    return _mlp(x, torch.cat([weight.reshape(-1) for weight in weights]), first, problem.text)


# --- the operators: csrc/register.cpp has the schemas, csrc/cpu the kernels ---


def _reference(x: Tensor, w: Tensor, first: Tensor | None, text: str) -> Tensor:
    problem = MlpProblem.from_text(text)
    x = x if first is None else x.index_select(0, first)
    parts = w.split([prod(shape) for shape in problem.shapes])
    for part, shape, layer in zip(parts, problem.shapes, problem.layers, strict=True):
        x = ACTIVATIONS[layer.activation](x @ (part.view(shape) * layer.factor))
    return x


def _reference_gradient(x: Tensor, w: Tensor, g: Tensor, *of: Any) -> tuple[Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor] = torch.func.vjp(lambda x, w: _reference(x, w, *of), x, w)[1](g)
    return gradients


def _reference_gradient_tangent(x: Tensor, w: Tensor, g: Tensor, d: Tensor, *of: Any) -> tuple[Tensor, ...]:
    gradient = torch.func.vjp(lambda x, w, g: _reference_gradient(x, w, g, *of)[0], x, w, g)
    gradients: tuple[Tensor, ...] = gradient[1](d)
    return gradients


def _keep(tensors: int) -> Callable[..., None]:
    """Keep all inputs: so many tensors, then ``first`` and the text (together ``of``), then what was wanted."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[: tensors + 1])
        ctx.text, *ctx.want = inputs[tensors + 1 :]
        ctx.rest = (None,) * (len(inputs) - tensors)

    return setup


def _wanted(ctx: Any) -> tuple[bool, bool]:
    """Whether gradients by x and by the weights, which are not differentiated by when forces are asked for."""
    want_x, want_w = ctx.needs_input_grad[:2]
    return want_x, want_w and goes_on_to(ctx, 1)


def _fake(x: Tensor, w: Tensor, first: Tensor | None, text: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], MlpProblem.from_text(text).dim_out)


def _backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
    x, w, first = ctx.saved_tensors
    want = _wanted(ctx)
    if g is None or not any(want):
        return None, None, *ctx.rest
    found = _mlp_gradient(x, w, g, first, ctx.text, *want)
    return *(value if wanted else None for value, wanted in zip(found, want, strict=True)), *ctx.rest


def _empty_gradients(x: Tensor, w: Tensor, want_x: bool, want_w: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if want_x else (0, x.shape[-1])), w.new_empty(w.shape if want_w else 0)


def _gradient_fake(x: Tensor, w: Tensor, g: Tensor, first: Any, text: str, *want: bool) -> tuple[Tensor, Tensor]:
    return _empty_gradients(x, w, *want)


def _gradient_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    x, w, g, first = ctx.saved_tensors
    to_x, to_w = (value if wanted else None for value, wanted in zip(cotangents, ctx.want, strict=True))
    if to_w is not None:  # second derivatives by the weights
        both = (torch.zeros_like(x) if to_x is None else to_x, to_w)
        reference = torch.func.vjp(lambda x, w, g: _reference_gradient(x, w, g, first, ctx.text), x, w, g)
        return *reference[1](both), *ctx.rest
    if to_x is None:
        return None, None, None, *ctx.rest
    want_x, want_w = _wanted(ctx)
    found = _mlp_gradient_tangent(x, w, g, to_x, first, ctx.text, want_x, want_w)
    return found[0] if want_x else None, found[1] if want_w else None, found[2], *ctx.rest


def _gradient_tangent_fake(
    x: Tensor, w: Tensor, g: Tensor, d: Tensor, first: Any, text: str, *want: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return *_empty_gradients(x, w, *want), g.new_empty(g.shape)


def _gradient_tangent_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    x, w, g, d, first = ctx.saved_tensors
    wanted = zip(cotangents, (*ctx.want, True), (x, w, g), strict=True)
    given = tuple(torch.zeros_like(at) if c is None or not want else c for c, want, at in wanted)
    of = first, ctx.text
    third = torch.func.vjp(lambda x, w, g, d: _reference_gradient_tangent(x, w, g, d, *of), x, w, g, d)[1](given)
    return *third, *ctx.rest


_mlp: Operator = compiled_operator("mlp", _fake, _keep(2), _backward, lambda *mapped: one_by_one(_mlp, *mapped))
_mlp_gradient: Operator = compiled_operator(
    "mlp_gradient", _gradient_fake, _keep(3), _gradient_backward, lambda *mapped: one_by_one(_mlp_gradient, *mapped)
)
_mlp_gradient_tangent: Operator = compiled_operator(
    "mlp_gradient_tangent", _gradient_tangent_fake, _keep(4), _gradient_tangent_backward,
    lambda *mapped: one_by_one(_mlp_gradient_tangent, *mapped),
)  # fmt: skip
