"""What operators that are linear in each of several tensors share: registration, and what autograd keeps of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from nequip_fast.ops.registration import compiled_operator, one_by_one


class MultilinearOperator:
    """An operator and those of its derivatives, registered by subclasses.

    Arguments of each are tensors (None: zero), then ``constant_tensors`` tensors and a text, which are not
    differentiated, and of those that give gradients a flag for each, whether it is wanted.
    """

    def __init__(self, constant_tensors: int) -> None:
        self._constants = constant_tensors

    def _registered(
        self,
        name: str,
        fake: Callable[..., Any],
        backward: Callable[..., Any],
        vmap: Callable[..., Any] | None = None,
    ) -> Callable[..., Any]:
        """As :func:`~nequip_fast.ops.registration.compiled_operator`; without a rule of vmap a call for each entry."""

        def call_each(*mapped: Any) -> Any:
            return one_by_one(compiled, *mapped)

        compiled = compiled_operator(name, fake, self._setup, backward, vmap or call_each)
        return compiled

    def _setup(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep all inputs: tensors, then the text of the paths, then what was wanted."""
        ctx.set_materialize_grads(False)
        tensors = [value for value in inputs if value is None or isinstance(value, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.text, *ctx.want = inputs[len(tensors) :]
        ctx.rest = (None,) * (self._constants + 1 + len(ctx.want))  # no gradient for what is not differentiated

    def _saved(self, ctx: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The operands of the call, and what is not differentiated."""
        tensors = ctx.saved_tensors
        operands = len(tensors) - self._constants
        return tensors[:operands], (*tensors[operands:], ctx.text)


def wanted(values: Sequence[Tensor | None], want: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """The values, None in place of those not wanted."""
    return tuple(value if each else None for value, each in zip(values, want, strict=True))


def empty_gradients(operands: Sequence[Tensor], want: Sequence[bool]) -> tuple[Tensor, ...]:
    """Room for the gradients that are wanted, of no rows else."""
    return tuple(t.new_empty(t.shape if each else (0, *t.shape[1:])) for t, each in zip(operands, want, strict=True))
