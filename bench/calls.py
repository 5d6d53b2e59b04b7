"""What is timed: forward, forward+backward and double backward of one contender's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FORWARD, BACKWARD, DOUBLE_BACKWARD = "forward", "forward+backward", "double backward"
ENERGY_AND_FORCES = "energy+forces"


class NotOffered(Exception):
    """A contender cannot run a case; the message says why."""


def _unchanged(results: list[Tensor]) -> list[Tensor]:
    return results


@dataclass(frozen=True)
class Call:
    """``run`` is timed; ``as_ours`` turns what it returns into what ours returns, and is not."""

    run: Callable[[], list[Tensor]]
    as_ours: Callable[[list[Tensor]], list[Tensor]] = _unchanged


def derivatives(
    function: Callable[..., Tensor],
    leaves: Sequence[Tensor],
    cotangent: Tensor,
    parameters: Sequence[Tensor] = (),
    twice: bool = True,
) -> dict[str, Call]:
    """Calls by mode; gradients go to the leaves and to the parameters, as in training.

    Double backward is the gradient of |first gradients with respect to the leaves|², as training on forces takes it.
    """

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [function(*leaves)]

    def backward() -> list[Tensor]:
        return list(torch.autograd.grad(function(*leaves), [*leaves, *parameters], cotangent))

    def double_backward() -> list[Tensor]:
        first = torch.autograd.grad(function(*leaves), leaves, cotangent, create_graph=True)
        square = sum(g.square().sum() for g in first)
        return list(torch.autograd.grad(square, [*leaves, *parameters], materialize_grads=True))

    calls = {FORWARD: Call(forward), BACKWARD: Call(backward)}
    return calls | {DOUBLE_BACKWARD: Call(double_backward)} if twice else calls
