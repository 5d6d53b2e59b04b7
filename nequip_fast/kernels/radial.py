"""The kernels of ``radial``: one with the value, one with its derivative, one with the derivative of that.

A block is [ROWS, SIZE]: edges and roots. The basis is sin(k x) e(x) with k = π root and the envelope
e(x) = factor/(π x) u(x), u = 1 + x^p (a + x (b + x c)) below x = 1, else 0; float64 throughout.
"""

import triton
import triton.language as tl

from nequip_fast.kernels.blocks import rows_of_program

PI = tl.constexpr(3.141592653589793)


@triton.jit(do_not_specialize=["rows"])
def radial(
    out, x, roots, rows,
    P: tl.constexpr, FACTOR: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """out [rows, COUNT]."""
    row, real = rows_of_program(tl.program_id(0), rows, ROWS)
    n = tl.arange(0, SIZE)[None, :]
    length = tl.load(x + row, mask=real, other=0.5)
    value, _, _ = _envelope(length, P, FACTOR)
    k = tl.load(roots + n, mask=n < COUNT, other=0.0) * PI
    tl.store(out + row * COUNT + n, tl.sin(length * k) * value, mask=real & (n < COUNT))


@triton.jit(do_not_specialize=["rows"])
def radial_vjp(
    to_x, x, g, roots, rows,
    P: tl.constexpr, FACTOR: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """to_x [rows]: the derivative of g · radial by x."""
    row, real = rows_of_program(tl.program_id(0), rows, ROWS)
    n = tl.arange(0, SIZE)[None, :]
    length = tl.load(x + row, mask=real, other=0.5)
    value, slope, _ = _envelope(length, P, FACTOR)
    k = tl.load(roots + n, mask=n < COUNT, other=0.0) * PI
    cotangent = tl.load(g + row * COUNT + n, mask=real & (n < COUNT), other=0.0).to(tl.float64)
    products = cotangent * (k * tl.cos(length * k) * value + tl.sin(length * k) * slope)
    tl.store(to_x + row, tl.sum(products, 1)[:, None], mask=real)


@triton.jit(do_not_specialize=["rows"])
def radial_vjp_grad(
    to_x, to_g, x, g, c, roots, rows,
    P: tl.constexpr, FACTOR: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """to_x [rows] and to_g [rows, COUNT]: the derivatives of c · radial_vjp by x and g."""
    row, real = rows_of_program(tl.program_id(0), rows, ROWS)
    n = tl.arange(0, SIZE)[None, :]
    length = tl.load(x + row, mask=real, other=0.5)
    value, slope, curvature = _envelope(length, P, FACTOR)
    k = tl.load(roots + n, mask=n < COUNT, other=0.0) * PI
    cotangent = tl.load(g + row * COUNT + n, mask=real & (n < COUNT), other=0.0).to(tl.float64)
    along = tl.load(c + row, mask=real, other=0.0)
    sine, cosine = tl.sin(length * k), tl.cos(length * k)
    first = along * (k * cosine * value + sine * slope)
    tl.store(to_g + row * COUNT + n, first, mask=real & (n < COUNT))
    products = cotangent * (sine * (curvature - k * k * value) + 2.0 * k * cosine * slope)
    tl.store(to_x + row, along * tl.sum(products, 1)[:, None], mask=real)


@triton.jit
def _envelope(x, P: tl.constexpr, FACTOR: tl.constexpr):
    """(e, e', e'')."""
    A: tl.constexpr = -(P + 1.0) * (P + 2.0) / 2.0
    B: tl.constexpr = P * (P + 2.0)
    C: tl.constexpr = -P * (P + 1.0) / 2.0
    power, f = tl.exp((P - 2.0) * tl.log(x)), FACTOR / (PI * x)
    u = 1.0 + power * x * x * (A + x * (B + x * C))
    du = power * x * (A * P + x * (B * (P + 1.0) + x * (C * (P + 2.0))))
    ddu = power * (A * P * (P - 1.0) + x * (B * (P + 1.0) * P + x * (C * (P + 2.0) * (P + 1.0))))
    outside = x >= 1.0
    slope = du - u / x
    curvature = ddu - 2.0 * slope / x
    return tl.where(outside, 0.0, f * u), tl.where(outside, 0.0, f * slope), tl.where(outside, 0.0, f * curvature)
