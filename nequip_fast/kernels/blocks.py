"""Building blocks of kernels: tuples of blocks, one for each component of an irrep, and sums of products of two."""

import triton
import triton.language as tl

from nequip_fast.kernels.table import coefficient_of, count_m1, count_terms, m1_of, m2_of, path_entry


@triton.jit
def zeros(COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, like):
    """COUNT blocks of zeros, of the type that ``like`` points to."""
    values = ()
    for _ in tl.static_range(COUNT):
        values = values + (tl.zeros((ROWS, COLUMNS), like.dtype.element_ty),)
    return values


@triton.jit
def zeros_like(value, COUNT: tl.constexpr):
    """COUNT blocks of zeros, of the shape and type of ``value``."""
    values = ()
    for _ in tl.static_range(COUNT):
        values = values + (tl.zeros_like(value),)
    return values


@triton.jit
def load_components(at, mask, COUNT: tl.constexpr, STRIDE: tl.constexpr):
    """COUNT blocks, each STRIDE after the one before."""
    values = ()
    for M in tl.static_range(COUNT):
        values = values + (tl.load(at + M * STRIDE, mask=mask, other=0.0),)
    return values


@triton.jit
def times(values, factor, COUNT: tl.constexpr):
    """Each times the factor."""
    result = ()
    for M in tl.static_range(COUNT):
        result = result + (values[M] * factor,)
    return result


@triton.jit
def plus_times(values, others, factor, COUNT: tl.constexpr):
    """Each plus another times the factor."""
    result = ()
    for M in tl.static_range(COUNT):
        result = result + (values[M] + others[M] * factor,)
    return result


@triton.jit
def replaced(values, INDEX: tl.constexpr, value):
    """One of them replaced."""
    return values[:INDEX] + (value,) + values[INDEX + 1 :]


@triton.jit
def add_at(values, INDEX: tl.constexpr, value):
    """To one of them added."""
    return replaced(values, INDEX, values[INDEX] + value)


@triton.jit
def added(sums, values, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """COUNT ``values`` added from place FIRST on."""
    for M in tl.static_range(COUNT):
        sums = add_at(sums, FIRST + M, values[M])
    return sums


@triton.jit
def add_dot(total, values, row, real, COUNT: tl.constexpr):
    """``total`` plus the products of values and what lies at ``row``."""
    for M in tl.static_range(COUNT):
        total += values[M] * tl.load(row + M, mask=real, other=0.0)
    return total


@triton.jit
def add_products(
    sums, source, y_row, real, TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr, FIRST: tl.constexpr
):
    """``sums`` with Σ_{m1} source[m1] M(m1, m3) added from component FIRST on; y at ``y_row``."""
    for M3 in tl.static_range(path_entry(TABLE, GROUP, PATH, 7)):
        total = sums[FIRST + M3]
        for I in tl.static_range(count_m1(TABLE, GROUP, PATH, M3)):
            total += source[m1_of(TABLE, GROUP, PATH, M3, I)] * _matrix_element(y_row, real, TABLE, GROUP, PATH, M3, I)
        sums = replaced(sums, FIRST + M3, total)
    return sums


@triton.jit
def _matrix_element(
    y_row, real, TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr, M3: tl.constexpr, I: tl.constexpr
):
    """M(m1, m3)."""
    total = coefficient_of(TABLE, GROUP, PATH, M3, I, 0) * tl.load(
        y_row + m2_of(TABLE, GROUP, PATH, M3, I, 0), mask=real, other=0.0
    )
    for K in tl.static_range(1, count_terms(TABLE, GROUP, PATH, M3, I)):
        element = tl.load(y_row + m2_of(TABLE, GROUP, PATH, M3, I, K), mask=real, other=0.0)
        total += coefficient_of(TABLE, GROUP, PATH, M3, I, K) * element
    return total


@triton.jit
def rows_of_program(program, rows, ROWS: tl.constexpr):
    """(rows of a block [ROWS, 1], which of them there are)."""
    row = program.to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    return row, row < rows
