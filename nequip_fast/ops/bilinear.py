"""Operators that are linear in each of two tensors, and their derivatives of every order.

With p = (a, b), a cotangent g of the result and F(p; g) = Σ g · op(p), compiled are ``op(p)`` and ``op_gradient(p; g)``
= ∂F/∂p. The derivatives of the latter are these two again, with one of a and b replaced by its cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from nequip_fast.ops.multilinear import MultilinearOperator, empty_gradients, wanted
from nequip_fast.ops.registration import goes_on_to


class BilinearOperator(MultilinearOperator):
    """The operators ``nequip_fast::name`` and ``name_gradient``, registered; an instance is called as the first.

    Arguments are a and b, of the second also g, then ``constant_tensors`` tensors and a text, which are not
    differentiated; the second ends with two flags, whether the gradients by a and b are wanted, and gives some of no
    rows where not.

    Args:
        name: of the first.
        fake: an empty result for (a, b, *constants).
        constant_tensors: how many tensors come before the text.
    """

    def __init__(self, name: str, fake: Callable[..., Tensor], constant_tensors: int = 0) -> None:
        super().__init__(constant_tensors)

        def gradient_fake(a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, ...]:
            return empty_gradients((a, b), rest[-2:])

        self.product = self._registered(name, fake, self._product_backward)
        self.product_gradient = self._registered(f"{name}_gradient", gradient_fake, self._gradient_backward)

    def __call__(self, *arguments: Any) -> Tensor:
        """``op(p)``."""
        result: Tensor = self.product(*arguments)
        return result

    def _gradient(
        self, p: Sequence[Tensor], g: Tensor, constants: Sequence[Any], want: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        if not any(want):
            return None, None
        return wanted(self.product_gradient(*p, g, *constants, *want), want)

    def _product_backward(self, ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        p, constants = self._saved(ctx)
        # one of them is made of parameters alone, which are left out when forces are asked for
        want = [ctx.needs_input_grad[i] and goes_on_to(ctx, i) for i in range(2)]
        return *((None, None) if g is None else self._gradient(p, g, constants, want)), *ctx.rest

    def _gradient_backward(self, ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (a, b, g), constants = self._saved(ctx)
        to_a, to_b = wanted(cotangents, ctx.want)
        want_a, want_b, want_g = ctx.needs_input_grad[:3]
        by_a = by_b = by_g = None
        if to_b is not None and want_a:
            by_a, _ = self._gradient((a, to_b), g, constants, (True, False))
        if to_a is not None and want_b and goes_on_to(ctx, 1):
            _, by_b = self._gradient((to_a, b), g, constants, (False, True))
        if want_g:
            terms = [self.product(*p, *constants) for c, p in ((to_a, (to_a, b)), (to_b, (a, to_b))) if c is not None]
            by_g = sum(terms[1:], terms[0]) if terms else None
        return by_a, by_b, by_g, *ctx.rest
