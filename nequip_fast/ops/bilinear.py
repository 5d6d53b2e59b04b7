"""Operators that are linear in each of two tensors, and their derivatives of every order.

With p = (a, b), a cotangent g of the result and F(p; g) = Σ g · op(p), compiled are ``op(p)`` and ``op_gradient(p; g)``
= ∂F/∂p. The derivatives of the latter are these two again, with one of a and b replaced by its cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from nequip_fast.ops.registration import compiled_operator, goes_on_to, one_by_one

Pair = tuple[Tensor | None, Tensor | None]


class BilinearOperator:
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
        self._constants = constant_tensors

        def gradient_fake(a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, ...]:
            want = zip((a, b), rest[-2:], strict=True)
            return tuple(t.new_empty(t.shape if wanted else (0, *t.shape[1:])) for t, wanted in want)

        def operator(suffix: str, fake: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
            def call_each(*mapped: Any) -> Any:
                return one_by_one(compiled, *mapped)

            compiled = compiled_operator(name + suffix, fake, self._setup, backward, call_each)
            return compiled

        self.product = operator("", fake, self._product_backward)
        self.product_gradient = operator("_gradient", gradient_fake, self._gradient_backward)

    def __call__(self, *arguments: Any) -> Tensor:
        """``op(p)``."""
        result: Tensor = self.product(*arguments)
        return result

    def _gradient(self, p: Sequence[Tensor], g: Tensor, constants: Sequence[Any], want: Sequence[bool]) -> Pair:
        if not any(want):
            return None, None
        a, b = self.product_gradient(*p, g, *constants, *want)
        return a if want[0] else None, b if want[1] else None

    def _setup(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep all inputs: tensors, then the text, then what was wanted."""
        ctx.set_materialize_grads(False)
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.text, *ctx.want = inputs[len(tensors) :]
        ctx.rest = (None,) * (self._constants + 1 + len(ctx.want))

    def _saved(self, ctx: Any) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """The operands of the call, and what is not differentiated."""
        operands = len(ctx.saved_tensors) - self._constants
        return ctx.saved_tensors[:operands], (*ctx.saved_tensors[operands:], ctx.text)

    def _product_backward(self, ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        p, constants = self._saved(ctx)
        # one of them is made of parameters alone, which are left out when forces are asked for
        want = [ctx.needs_input_grad[i] and goes_on_to(ctx, i) for i in range(2)]
        return *((None, None) if g is None else self._gradient(p, g, constants, want)), *ctx.rest

    def _gradient_backward(self, ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (a, b, g), constants = self._saved(ctx)
        to_a, to_b = (c if wanted else None for c, wanted in zip(cotangents, ctx.want, strict=True))
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
