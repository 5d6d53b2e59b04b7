"""The kernel of quintic Hermite interpolation in tables of radial weights: see :mod:`nequip_fast.engine.hermite`.

A lane has one edge; float64, cast once.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["edges"])
def hermite(first, values, slopes, x, knots, edges, KNOTS: tl.constexpr, DIGITS: tl.constexpr, SIZE: tl.constexpr):
    """first [edges], values and slopes [edges, 6]; KNOTS ≤ 2^DIGITS."""
    edge = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    real = edge < edges
    length = tl.load(x + edge, mask=real, other=0.0)
    below = tl.zeros_like(edge)  # the last knot but one that is not beyond x, digit by digit
    for DIGIT in tl.static_range(DIGITS):
        further = below + (1 << (DIGITS - 1 - DIGIT))
        there = further < KNOTS - 1
        below = tl.where(there & (tl.load(knots + further, mask=there, other=0.0) <= length), further, below)
    low = tl.load(knots + below)
    width = tl.load(knots + below + 1) - low
    t = (length - low) / width
    s = 1.0 - t
    tl.store(first + edge, 6 * below, mask=real)
    row = values + edge * 6
    tl.store(row, tl.full(t.shape, 1.0, tl.float64), mask=real)
    tl.store(row + 1, width * t * s * s * s * (1.0 + 3.0 * t), mask=real)
    tl.store(row + 2, 0.5 * width * width * t * t * s * s * s, mask=real)
    tl.store(row + 3, t * t * t * (10.0 - 15.0 * t + 6.0 * t * t), mask=real)
    tl.store(row + 4, -width * s * t * t * t * (1.0 + 3.0 * s), mask=real)
    tl.store(row + 5, 0.5 * width * width * s * s * t * t * t, mask=real)
    row = slopes + edge * 6
    tl.store(row, tl.zeros_like(t), mask=real)
    tl.store(row + 1, s * s * (1.0 + 2.0 * t - 15.0 * t * t), mask=real)
    tl.store(row + 2, 0.5 * width * t * s * s * (2.0 - 5.0 * t), mask=real)
    tl.store(row + 3, 30.0 * t * t * s * s / width, mask=real)
    tl.store(row + 4, t * t * (1.0 + 2.0 * s - 15.0 * s * s), mask=real)
    tl.store(row + 5, -0.5 * width * s * t * t * (2.0 - 5.0 * s), mask=real)
