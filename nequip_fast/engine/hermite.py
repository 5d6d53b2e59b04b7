"""Quintic Hermite interpolation in a table of weights, as :func:`nequip_fast.ops.conv_of_table` takes it.

An interval has six rows: value, slope and curvature at its lower knot, what the value rises by, slope and curvature at
its upper knot. With values at both knots the derivative would be a difference of large numbers.
"""

from __future__ import annotations

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


def interval_rows(x: Tensor, knots: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The first row of the interval of each x, what the six rows are multiplied with, and the slopes of that.

    Args:
        x: [E], float64; knots: [K], rising, float64.
        dtype: of the result.

    Returns:
        (first [E] int64, values [E, 6], slopes [E, 6]); nothing is differentiable.
    """
    kernel = backend.kernel("hermite", x)
    return _definition(x, knots, dtype) if kernel is None else kernel(x, knots, dtype == torch.float32)


def _definition(x: Tensor, knots: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """In plain torch."""
    first, _ = hermite_coefficients(knots, x)
    values, slopes = value_and_slope(lambda x: hermite_coefficients(knots, x)[1], x)
    values[:, 0], slopes[:, 0] = 1, 0  # of the value at the lower knot, where the rise is a row of its own
    return 2 * first, values.to(dtype), slopes.to(dtype)
