"""The kernels of ``spherical_harmonics``: the value, its derivative, and the derivative of that.

Solid harmonics Y(l, m) are homogeneous polynomials whose gradients are those of the degree below,

    ∂Y(l, m)/∂v[a] = Σ_k D(l, m, k, a) Y(l − 1, k),    so that    Y(l, m) = 1/l Σ_{k, a} D(l, m, k, a) v[a] Y(l − 1, k)

(Euler): one table serves the values and all derivatives. HARMONICS: [[[l, column, scale], …], D], D(l) at l − 1 a list
for each m of [k, a, coefficient]. A block is [ROWS]; with NORMALIZED they are taken at n = v/|v|.
"""

import triton
import triton.language as tl

from nequip_fast.kernels.blocks import add_at, load_components, zeros_like
from nequip_fast.kernels.table import decoded

SHORTEST = tl.constexpr(1e-12)  # |v| below is taken for it, as torch's normalize does


@triton.constexpr_function
def count_degrees(text):
    """Degrees that are wanted."""
    return len(decoded(text)[0])


@triton.constexpr_function
def degree_entry(text, degree, entry):
    """0: l, 1: first column, 2: scale."""
    return decoded(text)[0][degree][entry]


@triton.constexpr_function
def largest_degree(text):
    """The largest l."""
    return len(decoded(text)[1])


@triton.constexpr_function
def count_couplings(text, l, m):
    """Terms of the gradient of Y(l, m)."""
    return len(decoded(text)[1][l - 1][m])


@triton.constexpr_function
def coupling(text, l, m, i, entry):
    """0: k, 1: a, 2: coefficient."""
    return decoded(text)[1][l - 1][m][i][entry]


@triton.constexpr_function
def inverse(l):
    """1/l."""
    return 1.0 / l


@triton.jit(do_not_specialize=["rows"])
def spherical_harmonics(
    out, v, rows, HARMONICS: tl.constexpr, NORMALIZED: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr
):
    """out [rows, WIDTH] from v [rows, 3]."""
    row, real = _rows_of_program(rows, ROWS)
    n, _, _ = _direction(load_components(v + row * 3, real, 3, 1), NORMALIZED)
    ys = _values(n, HARMONICS, largest_degree(HARMONICS))
    for DEGREE in tl.static_range(count_degrees(HARMONICS)):
        _store_degree(out + row * WIDTH, ys, real, HARMONICS, DEGREE)


@triton.jit
def _store_degree(out, ys, real, HARMONICS: tl.constexpr, DEGREE: tl.constexpr):
    L: tl.constexpr = degree_entry(HARMONICS, DEGREE, 0)
    for M in tl.static_range(2 * L + 1):
        value = ys[L * L + M] * degree_entry(HARMONICS, DEGREE, 2)
        tl.store(out + degree_entry(HARMONICS, DEGREE, 1) + M, value, mask=real)


@triton.jit(do_not_specialize=["rows"])
def spherical_harmonics_vjp(
    to_v, v, g, rows, HARMONICS: tl.constexpr, NORMALIZED: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr
):
    """to_v [rows, 3]: the derivative of g · Y by v."""
    row, real = _rows_of_program(rows, ROWS)
    n, length, projects = _direction(load_components(v + row * 3, real, 3, 1), NORMALIZED)
    u = _gradient(n, g + row * WIDTH, real, HARMONICS)
    if NORMALIZED:
        u = _divided(_minus_times(u, n, projects * _dot(n, u)), length)
    for A in tl.static_range(3):
        tl.store(to_v + row * 3 + A, u[A], mask=real)


@triton.jit(do_not_specialize=["rows"])
def spherical_harmonics_vjp_grad(
    to_v,
    to_g,
    v,
    g,
    c,
    rows,
    HARMONICS: tl.constexpr,
    NORMALIZED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """to_v [rows, 3], to_g [rows, WIDTH]: the derivatives of c · spherical_harmonics_vjp by v and g.

    With u = ∇(g · Y) and H its Hessian at n, both of the polynomials, and p = c − n (n · c): F = p · u / |v|, and

        ∂F/∂v = (q − n (n · q) − n F) / |v|,    q = H p − c (n · u) − u (n · c).
    """
    row, real = _rows_of_program(rows, ROWS)
    n, length, projects = _direction(load_components(v + row * 3, real, 3, 1), NORMALIZED)
    along = load_components(c + row * 3, real, 3, 1)
    p = along
    if NORMALIZED:
        p = _divided(_minus_times(along, n, projects * _dot(n, along)), length)
    ys = _values(n, HARMONICS, largest_degree(HARMONICS))
    q = zeros_like(n[0], 3)
    for DEGREE in tl.static_range(count_degrees(HARMONICS)):
        q = _add_second(q, to_g + row * WIDTH, g + row * WIDTH, ys, p, real, HARMONICS, DEGREE)
    if NORMALIZED:
        u = _gradient(n, g + row * WIDTH, real, HARMONICS)
        q = _minus_times(q, along, projects * _dot(n, u) / length)
        q = _minus_times(q, u, projects * _dot(n, along) / length)
        q = _minus_times(q, n, projects * (_dot(n, q) + _dot(p, u)))
        q = _divided(q, length)
    for A in tl.static_range(3):
        tl.store(to_v + row * 3 + A, q[A], mask=real)


@triton.jit
def _add_second(q, to_g, g, ys, p, real, HARMONICS: tl.constexpr, DEGREE: tl.constexpr):
    """Writes the derivative of the harmonics of a degree along p; ``q`` with that of g · ∂Y/∂p added."""
    L: tl.constexpr = degree_entry(HARMONICS, DEGREE, 0)
    COLUMN: tl.constexpr = degree_entry(HARMONICS, DEGREE, 1)
    SCALE: tl.constexpr = degree_entry(HARMONICS, DEGREE, 2)
    if L == 0:
        tl.store(to_g + COLUMN, tl.zeros_like(p[0]), mask=real)
    else:
        weights = zeros_like(p[0], 2 * L - 1)  # of Y(l − 1, k) in g · ∂Y/∂p
        for M in tl.static_range(2 * L + 1):
            cotangent = tl.load(g + COLUMN + M, mask=real, other=0.0) * SCALE
            total = tl.zeros_like(p[0])
            for I in tl.static_range(count_couplings(HARMONICS, L, M)):
                factor = coupling(HARMONICS, L, M, I, 2) * p[coupling(HARMONICS, L, M, I, 1)]
                total += factor * ys[(L - 1) * (L - 1) + coupling(HARMONICS, L, M, I, 0)]
                weights = add_at(weights, coupling(HARMONICS, L, M, I, 0), factor * cotangent)
            tl.store(to_g + COLUMN + M, total * SCALE, mask=real)
        q = _add_gradients(q, weights, ys, HARMONICS, L - 1)
    return q


@triton.jit
def _gradient(n, g, real, HARMONICS: tl.constexpr):
    """∇(g · Y) of the polynomials at n."""
    ys = _values(n, HARMONICS, largest_degree(HARMONICS) - 1)
    u = zeros_like(n[0], 3)
    for DEGREE in tl.static_range(count_degrees(HARMONICS)):
        u = _add_degree(u, g, ys, real, HARMONICS, DEGREE)
    return u


@triton.jit
def _add_degree(u, g, ys, real, HARMONICS: tl.constexpr, DEGREE: tl.constexpr):
    L: tl.constexpr = degree_entry(HARMONICS, DEGREE, 0)
    weights = ()
    for M in tl.static_range(2 * L + 1):
        cotangent = tl.load(g + degree_entry(HARMONICS, DEGREE, 1) + M, mask=real, other=0.0)
        weights = weights + (cotangent * degree_entry(HARMONICS, DEGREE, 2),)
    return _add_gradients(u, weights, ys, HARMONICS, L)


@triton.jit
def _add_gradients(u, weights, ys, HARMONICS: tl.constexpr, L: tl.constexpr):
    """``u`` with Σ_m weights[m] ∇Y(l, m) added."""
    if L > 0:
        for M in tl.static_range(2 * L + 1):
            for I in tl.static_range(count_couplings(HARMONICS, L, M)):
                element = coupling(HARMONICS, L, M, I, 2) * ys[(L - 1) * (L - 1) + coupling(HARMONICS, L, M, I, 0)]
                u = add_at(u, coupling(HARMONICS, L, M, I, 1), element * weights[M])
    return u


@triton.jit
def _values(n, HARMONICS: tl.constexpr, LARGEST: tl.constexpr):
    """Y(l, m) at l² + m, to l = LARGEST."""
    ys = (tl.zeros_like(n[0]) + 1.0,)
    for L in tl.static_range(1, LARGEST + 1):
        for M in tl.static_range(2 * L + 1):
            total = tl.zeros_like(n[0])
            for I in tl.static_range(count_couplings(HARMONICS, L, M)):
                factor = coupling(HARMONICS, L, M, I, 2) * n[coupling(HARMONICS, L, M, I, 1)]
                total += factor * ys[(L - 1) * (L - 1) + coupling(HARMONICS, L, M, I, 0)]
            ys = ys + (total * inverse(L),)
    return ys


@triton.jit
def _direction(v, NORMALIZED: tl.constexpr):
    """(n, |v|, 1 where n depends on the direction alone): v itself where harmonics are not normalized."""
    if NORMALIZED:
        largest = tl.maximum(tl.abs(v[0]), tl.maximum(tl.abs(v[1]), tl.abs(v[2])))  # whose square may overflow
        largest = tl.where(largest > 0, largest, tl.zeros_like(largest) + 1.0)
        scaled = _divided(v, largest)
        length = largest * tl.sqrt(_dot(scaled, scaled))
        short = length < SHORTEST  # not of NaN
        projects = tl.where(short, tl.zeros_like(length), tl.zeros_like(length) + 1.0)
        length = tl.where(short, tl.zeros_like(length) + SHORTEST, length)
        return _divided(v, length), length, projects
    else:
        return v, v[0], v[0]


# --- building blocks: tuples of blocks, one for each component ---


@triton.jit
def _rows_of_program(rows, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return row, row < rows


@triton.jit
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
def _minus_times(a, b, factor):
    return a[0] - b[0] * factor, a[1] - b[1] * factor, a[2] - b[2] * factor


@triton.jit
def _divided(a, length):
    return a[0] / length, a[1] / length, a[2] / length
