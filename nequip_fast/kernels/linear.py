"""The kernel of the engine's linear maps between rows of segments: all segments of a layer in one launch.

A text that is JSON says what there is: ``[[column, channels, components, [[column, channels, weight], …]], …]`` for
each segment of the result, e3nn's layout, and in it for each source where its channels begin and where its matrix
[channels of the source, channels] begins in w.
"""

import triton
import triton.language as tl

from nequip_fast.kernels.table import decoded

DEPTH = tl.constexpr(32)  # channels of a source that are multiplied at a time


@triton.jit(do_not_specialize=["rows"])
def linear(
    out, x, w, rows,
    TABLE: tl.constexpr, WIDTH_IN: tl.constexpr, WIDTH_OUT: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out [rows, WIDTH_OUT] from x [rows, WIDTH_IN]. A program has ROWS components of rows and COLUMNS channels."""
    program, begin = tl.program_id(0), 0
    for TARGET in tl.static_range(count_targets(TABLE)):
        tiles = tl.cdiv(target_entry(TABLE, TARGET, 1), COLUMNS)
        programs = tiles * tl.cdiv(rows * target_entry(TABLE, TARGET, 2), ROWS)
        if (program >= begin) & (program < begin + programs):
            _target(
                out, x, w, rows, (program - begin) % tiles, (program - begin) // tiles,
                TABLE, TARGET, WIDTH_IN, WIDTH_OUT, PRECISION, ROWS, COLUMNS,
            )  # fmt: skip
        begin += programs


@triton.jit
def _target(
    out, x, w, rows, tile, block,
    TABLE: tl.constexpr, TARGET: tl.constexpr, WIDTH_IN: tl.constexpr, WIDTH_OUT: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    N: tl.constexpr = target_entry(TABLE, TARGET, 2)
    CHANNELS: tl.constexpr = target_entry(TABLE, TARGET, 1)
    place = block.to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    row, component = place // N, place % N
    channel = tile * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros([ROWS, COLUMNS], out.dtype.element_ty)
    for SOURCE in tl.static_range(count_sources(TABLE, TARGET)):
        total = _add_product(
            total, x + row * WIDTH_IN + source_entry(TABLE, TARGET, SOURCE, 0) + component,
            w + source_entry(TABLE, TARGET, SOURCE, 2) + channel, row < rows, channel < CHANNELS,
            source_entry(TABLE, TARGET, SOURCE, 1), N, CHANNELS, PRECISION,
        )  # fmt: skip
    at = out + row * WIDTH_OUT + target_entry(TABLE, TARGET, 0) + channel * N + component
    tl.store(at, total, mask=(row < rows) & (channel < CHANNELS))


@triton.jit
def _add_product(
    total, at_x, at_w, real, there,
    INNER: tl.constexpr, STRIDE_X: tl.constexpr, STRIDE_W: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``total`` with the product of INNER channels from ``at_x`` on and a matrix added."""
    for start in range(0, INNER, DEPTH):
        k = start + tl.arange(0, DEPTH)
        some = tl.load(at_x + k[None, :] * STRIDE_X, mask=real & (k < INNER)[None, :], other=0.0)
        matrix = tl.load(at_w + k[:, None] * STRIDE_W, mask=(k < INNER)[:, None] & there, other=0.0)
        total = tl.dot(some, matrix, total, input_precision=PRECISION, out_dtype=total.dtype)
    return total


@triton.constexpr_function
def count_targets(text):
    """Segments of the result."""
    return len(decoded(text))


@triton.constexpr_function
def target_entry(text, target, entry):
    """0: column, 1: channels, 2: components."""
    return decoded(text)[target][entry]


@triton.constexpr_function
def count_sources(text, target):
    """What is mapped to it."""
    return len(decoded(text)[target][3])


@triton.constexpr_function
def source_entry(text, target, source, entry):
    """0: column, 1: channels, 2: where its matrix begins."""
    return decoded(text)[target][3][source][entry]


@triton.constexpr_function
def programs_of(text, rows, block, columns):
    """How many there are."""
    return sum(-(-channels // columns) * -(-rows * n // block) for _, channels, n, _ in decoded(text))
