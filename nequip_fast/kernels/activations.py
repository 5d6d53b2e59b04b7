"""Activation functions with their first and second derivatives, as blocks. The names are those of ``ops.gate``.

exp only of −|x|, which does not overflow.
"""

import triton
import triton.language as tl

SOFTPLUS_THRESHOLD = tl.constexpr(20.0)  # where torch's softplus becomes the identity
LOG_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def activate(x, NAME: tl.constexpr):
    """(f(x), f'(x), f''(x)); what is not used costs nothing."""
    zero = tl.zeros_like(x)
    e = tl.exp(-tl.abs(x))
    inverse = 1.0 / (1.0 + e)
    s = tl.where(x < 0, e * inverse, inverse)  # 1 / (1 + exp(−x))
    rest = tl.where(x < 0, inverse, e * inverse)
    slope = s * rest
    if NAME == "identity":
        return x, zero + 1.0, zero
    elif NAME == "abs":
        return tl.abs(x), tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x)), zero
    elif NAME == "relu":
        return tl.where(x < 0, 0.0, x), tl.where(x > 0, zero + 1.0, zero), zero
    elif NAME == "sigmoid":
        return s, slope, slope * (rest - s)
    elif NAME == "silu":
        return x * s, s * (x * rest + 1.0), slope * (x * (rest - s) + 2.0)
    elif NAME == "tanh":
        return _tanh(x, e)
    elif NAME == "mish":
        return _mish(x, e, s, rest)
    else:
        return _softplus(x, e, s, slope, NAME)


@triton.jit
def _tanh(x, e):
    """tanh |x| = (1 − e²) / (1 + e²); a series where that cancels."""
    square = x * x
    small = x * (1.0 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835)))))
    size = (1.0 - e * e) / (1.0 + e * e)
    t = tl.where(tl.abs(x) < 0.02, small, tl.where(x < 0, -size, size))
    return t, 1.0 - t * t, -2.0 * t * (1.0 - t * t)


@triton.jit
def _mish(x, e, s, rest):
    """x t, t = tanh(log(1 + exp(x))) = n/d with e on the side where it is small."""
    gap = tl.where(x < 0, 2.0, 2.0 * e * e)
    n = tl.where(x < 0, e * (e + 2.0), 2.0 * e + 1.0)
    d = n + gap
    t = n / d
    w = s * (gap * (d + n) / (d * d))  # s (1 − t²)
    return x * t, t + x * w, 2.0 * w + x * (w * (rest - 2.0 * t * s))


@triton.jit
def _softplus(x, e, s, slope, NAME: tl.constexpr):
    tl.static_assert(NAME == "softplus" or NAME == "ssp")
    value = tl.where(x < 0, 0.0, x) + _log1p(e)
    linear = x > SOFTPLUS_THRESHOLD
    value = tl.where(linear, x, value)
    if NAME == "ssp":
        value -= LOG_2
    return value, tl.where(linear, 1.0, s), tl.where(linear, 0.0, slope)


@triton.jit
def _log1p(e):
    """log(1 + e), 0 ≤ e ≤ 1: what rounding takes from 1 + e comes back as a factor (Kahan)."""
    u = 1.0 + e
    return tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
