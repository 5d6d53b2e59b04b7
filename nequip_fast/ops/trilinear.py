"""Operators that are linear in each of x, y and w, and their derivatives of every order: ``conv``, ``tensor_product``.

With p = (x, y, w) and a cotangent g of the result, F(p; g) = Σ g · op(p). Compiled are

* ``op(p)`` and ``op_tangent(p, d)``, its derivative along d = (dx, dy, dw);
* ``op_gradient(p; g)`` = ∂F/∂p and ``op_gradient_tangent(p; g, d)``, its derivative along d.

With the symmetric form T(a, b, c; g), the sum of F with x, y and w taken from a, b, c in all six orders, these are
T(p, p, p)/6, T(p, p, d)/2, T(·, p, p)/2 and T(·, p, d), so each derivative of any order is one of them again: one
operator in the backward pass of each, which reads the weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations
from typing import Any, Protocol

import torch
from torch import Tensor

from nequip_fast.ops.multilinear import MultilinearOperator, empty_gradients, wanted
from nequip_fast.ops.registration import goes_on_to

Point = Sequence[Tensor | None]  # x, y, w; of a tangent or a gradient, None is zero
_NOTHING: Point = (None, None, None)


class Problem(Protocol):
    """The paths of an operator."""

    text: str

    @classmethod
    def from_text(cls, text: str) -> Problem:
        """The problem that the text describes."""

    def weighted(self) -> Problem:
        """The same without the paths that have no weights."""


class TrilinearOperator(MultilinearOperator):
    """The four operators ``nequip_fast::name…``, registered; an instance is called as the first.

    Arguments are the tensors named above, then what is not differentiated: ``constant_tensors`` tensors and a text that
    describes the paths; those that give gradients end with three flags, whether those of x, y and w are wanted.

    Args:
        name: of the first operator.
        problem: what the text describes.
        fake: an empty result for (x, y, w, *constants).
        constant_tensors: how many tensors come before the text.
        vmap, gradient_vmap: rules of vmap for ``op`` and ``op_gradient``; without, a call for each entry.
    """

    def __init__(
        self,
        name: str,
        problem: type[Problem],
        fake: Callable[..., Tensor],
        constant_tensors: int = 0,
        vmap: Callable[..., Any] | None = None,
        gradient_vmap: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(constant_tensors)
        self._linear_in_w = cache(lambda text: problem.from_text(text).weighted().text)

        def tangent_fake(x: Tensor, y: Tensor, w: Tensor, *rest: Any) -> Tensor:
            return fake(x, y, w, *rest[3:])

        self.product = self._registered(name, fake, self._product_backward, vmap)
        self.product_tangent = self._registered(f"{name}_tangent", tangent_fake, self._tangent_backward)
        self.product_gradient = self._registered(
            f"{name}_gradient", gradient_fake, self._gradient_backward, gradient_vmap
        )
        self.product_gradient_tangent = self._registered(
            f"{name}_gradient_tangent", gradient_fake, self._gradient_tangent_backward
        )

    def __call__(self, *arguments: Any) -> Tensor:
        """``op(p)``."""
        return self.product(*arguments)

    # --- the derivatives where something is known to be zero or not wanted ---

    def _tangent(self, p: Point, d: Point, constants: Sequence[Any]) -> Tensor | None:
        """T(p, p, d)/2."""
        return None if _nothing(d) else self.product_tangent(*p, *d, *constants)

    def _gradient(self, p: Point, g: Tensor, constants: Sequence[Any], want: Sequence[bool]) -> Point:
        """T(·, p, p; g)/2, where wanted."""
        if not any(want):
            return _NOTHING
        return wanted(self.product_gradient(*p, g, *constants, *want), want)

    def _gradient_tangent(self, p: Point, g: Tensor, d: Point, constants: Sequence[Any], want: Sequence[bool]) -> Point:
        """T(·, p, d; g), where wanted."""
        if not any(want) or _nothing(d):
            return _NOTHING
        return wanted(self.product_gradient_tangent(*p, g, *d, *constants, *want), want)

    # --- what autograd is told ---

    def _product_backward(self, ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        p, constants = self._saved(ctx)
        want = list(ctx.needs_input_grad[:3])
        want[2] = want[2] and (p[2].shape[0] != 1 or goes_on_to(ctx, 2))  # a parameter; not when forces are asked for
        return *(_NOTHING if g is None else self._gradient(p, g, constants, want)), *ctx.rest

    def _tangent_backward(self, ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        (*p, dx, dy, dw), constants = self._saved(ctx)
        if g is None:
            return *_NOTHING, *_NOTHING, *ctx.rest
        to_p = self._gradient_tangent(p, g, (dx, dy, dw), constants, ctx.needs_input_grad[:3])
        return *to_p, *self._gradient(p, g, constants, ctx.needs_input_grad[3:6]), *ctx.rest

    def _gradient_backward(self, ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (*p, g), constants = self._saved(ctx)
        c = wanted(cotangents, ctx.want)
        to_p = self._gradient_tangent(p, g, c, constants, ctx.needs_input_grad[:3])
        return *to_p, self._tangent(p, c, constants) if ctx.needs_input_grad[3] else None, *ctx.rest

    def _gradient_tangent_backward(self, ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (x, y, w, g, *d), constants = self._saved(ctx)
        c = wanted(cotangents, ctx.want)
        if _nothing(c):
            return *_NOTHING, None, *_NOTHING, *ctx.rest
        p, want = (x, y, w), ctx.needs_input_grad
        full = tuple(torch.zeros_like(at) if value is None else value for value, at in zip(c, p, strict=True))
        weighted = *constants[:-1], self._linear_in_w(ctx.text)  # paths without weights have no third derivative
        to_p = self._gradient_tangent(full, g, d, weighted, want[:3])
        to_d = self._gradient_tangent(p, g, c, constants, want[4:7])
        to_g = None
        if want[3]:  # T(p, c, d), term by term
            terms = [
                self.product(a[0], b[1], third[2], *(constants if third is p else weighted))
                for a, b, third in permutations((p, c, d))
                if a[0] is not None and b[1] is not None and third[2] is not None
            ]
            to_g = sum(terms[1:], terms[0]) if terms else None
        return *to_p, to_g, *to_d, *ctx.rest


def _nothing(p: Point) -> bool:
    return all(value is None for value in p)


def gradient_fake(x: Tensor, y: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Empty gradients of those that the last three arguments want, of no rows else."""
    return empty_gradients((x, y, w), rest[-3:])
