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
from nequip_fast.engine.radial import value_and_slope
from nequip_fast.ops import backend
from nequip_fast.ops.conv_of_rows import hermite_coefficients


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
        kernel = backend.kernel("hermite", x)
        if kernel is None:
            first, values, slopes = _definition(x, knots, dtype)
        else:
            first, values, slopes = kernel(x, knots, dtype == torch.float32)
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(first)
        return first, values

    @staticmethod
    def backward(ctx: Any, _: Tensor, g: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (g * slopes).sum(1).double(), None, None


def _definition(x: Tensor, knots: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(first, values, slopes) in plain torch."""
    first, _ = hermite_coefficients(knots, x)
    values, slopes = value_and_slope(lambda x: hermite_coefficients(knots, x)[1], x)
    values[:, 0], slopes[:, 0] = 1, 0  # of the value at the lower knot, where the rise is a row of its own
    return 2 * first, values.to(dtype), slopes.to(dtype)
