"""Quintic Hermite interpolation in a table of weights, as :func:`nequip_fast.ops.conv_of_table` takes it.

An interval has six rows: value, slope and curvature at its lower knot, what the value rises by, slope and curvature at
its upper knot. With values at both knots the derivative would be a difference of large numbers. What x multiplies them
with comes with its slopes: autograd would keep a dozen float64 numbers for each edge.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nequip_fast.engine.program import RadialTable
from nequip_fast.ops import backend


def interval_table(radial: RadialTable) -> Tensor:
    """[6 · intervals, W]"""
    low, high = radial.values[:-1], radial.values[1:].clone()
    high[:, 0] -= low[:, 0]
    return torch.cat([low, high], 1).flatten(0, 1)


def interval_rows(x: Tensor, knots: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The first row of the interval of each x, and what the six rows are multiplied with, differentiable once.

    Args:
        x: [E], float64; knots: [K], rising, float64.
        dtype: of the result.

    Returns:
        (first [E] int64, [E, 6]).
    """
    return _IntervalRows.apply(x, knots, dtype)


class _IntervalRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, knots: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if backend.can("hermite", "triton", x):
            first, values, slopes = torch.ops.nequip_fast.triton_hermite(x, knots, dtype == torch.float32)
        else:
            first, values, slopes = _definition(x, knots, dtype)
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(first)
        return first, values

    @staticmethod
    def backward(ctx: Any, _: Tensor, g: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (g * slopes).sum(1).double(), None, None


def _definition(x: Tensor, knots: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(first, values, slopes) in plain torch."""
    below = (torch.searchsorted(knots, x, right=True) - 1).clamp(0, len(knots) - 2)
    low = knots[below]
    width = knots[below + 1] - low
    t = (x - low) / width
    s = 1 - t
    values = (
        torch.ones_like(t), width * t * s**3 * (1 + 3 * t), width**2 / 2 * t**2 * s**3,
        t**3 * (10 - 15 * t + 6 * t**2), -width * s * t**3 * (1 + 3 * s), width**2 / 2 * s**2 * t**3,
    )  # fmt: skip
    slopes = (
        torch.zeros_like(t), s**2 * (1 + 2 * t - 15 * t**2), width / 2 * t * s**2 * (2 - 5 * t),
        30 * t**2 * s**2 / width, t**2 * (1 + 2 * s - 15 * s**2), -width / 2 * s * t**2 * (2 - 5 * s),
    )  # fmt: skip
    return 6 * below, torch.stack(values, 1).to(dtype), torch.stack(slopes, 1).to(dtype)
