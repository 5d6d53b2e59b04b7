"""The kernels of ``gate``: one with the value, one with its derivative, one with the derivative of that.

SEGMENTS: [[x, gate, out, mul, dim, activation, constant], …], see :class:`nequip_fast.ops.gate.GateSegment`. A block is
[ROWS, CHANNELS]; a program has ROWS rows and all segments.
"""

import triton
import triton.language as tl

from nequip_fast.kernels.activations import activate
from nequip_fast.kernels.blocks import rows_of_program
from nequip_fast.kernels.table import decoded


@triton.constexpr_function
def count_segments(text):
    """Segments."""
    return len(decoded(text))


@triton.constexpr_function
def segment_entry(text, segment, entry):
    """0: x, 1: gate, 2: out, 3: mul, 4: dim, 5: activation, 6: constant."""
    return decoded(text)[segment][entry]


@triton.jit(do_not_specialize=["rows"])
def gate(
    out, x, rows, SEGMENTS: tl.constexpr, WIDTH_IN: tl.constexpr, WIDTH_OUT: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """out [rows, WIDTH_OUT]."""
    row, real = rows_of_program(tl.program_id(0), rows, ROWS)
    for SEGMENT in tl.static_range(count_segments(SEGMENTS)):
        for start in range(0, segment_entry(SEGMENTS, SEGMENT, 3), CHANNELS):
            _gate_segment(out + row * WIDTH_OUT, x + row * WIDTH_IN, real, start, SEGMENTS, SEGMENT, CHANNELS)


@triton.jit
def _gate_segment(
    out, x, real, start, SEGMENTS: tl.constexpr, SEGMENT: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    DIM: tl.constexpr = segment_entry(SEGMENTS, SEGMENT, 4)
    channel = start + tl.arange(0, CHANNELS)[None, :]
    mask = real & (channel < segment_entry(SEGMENTS, SEGMENT, 3))
    value, _, _ = activate(
        tl.load(_scalars(x, channel, SEGMENTS, SEGMENT), mask=mask, other=0.0), segment_entry(SEGMENTS, SEGMENT, 5)
    )
    value *= segment_entry(SEGMENTS, SEGMENT, 6)
    at = out + segment_entry(SEGMENTS, SEGMENT, 2) + channel * DIM
    if segment_entry(SEGMENTS, SEGMENT, 1) < 0:
        tl.store(at, value, mask=mask)
    else:
        gated = x + segment_entry(SEGMENTS, SEGMENT, 0) + channel * DIM
        for M in tl.static_range(DIM):
            tl.store(at + M, tl.load(gated + M, mask=mask, other=0.0) * value, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def gate_vjp(
    to_x, x, g, rows, SEGMENTS: tl.constexpr, WIDTH_IN: tl.constexpr, WIDTH_OUT: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """to_x [rows, WIDTH_IN]: the derivative of g · gate by x."""
    row, real = rows_of_program(tl.program_id(0), rows, ROWS)
    for SEGMENT in tl.static_range(count_segments(SEGMENTS)):
        for start in range(0, segment_entry(SEGMENTS, SEGMENT, 3), CHANNELS):
            _gate_vjp_segment(
                to_x + row * WIDTH_IN, x + row * WIDTH_IN, g + row * WIDTH_OUT, real, start, SEGMENTS, SEGMENT, CHANNELS
            )


@triton.jit
def _gate_vjp_segment(
    to_x, x, g, real, start, SEGMENTS: tl.constexpr, SEGMENT: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    DIM: tl.constexpr = segment_entry(SEGMENTS, SEGMENT, 4)
    CONSTANT: tl.constexpr = segment_entry(SEGMENTS, SEGMENT, 6)
    channel = start + tl.arange(0, CHANNELS)[None, :]
    mask = real & (channel < segment_entry(SEGMENTS, SEGMENT, 3))
    scalar = tl.load(_scalars(x, channel, SEGMENTS, SEGMENT), mask=mask, other=0.0)
    value, slope, _ = activate(scalar, segment_entry(SEGMENTS, SEGMENT, 5))
    at_g = g + segment_entry(SEGMENTS, SEGMENT, 2) + channel * DIM
    to_scalar = tl.zeros_like(scalar)
    if segment_entry(SEGMENTS, SEGMENT, 1) < 0:
        to_scalar += tl.load(at_g, mask=mask, other=0.0)
    else:
        column = segment_entry(SEGMENTS, SEGMENT, 0) + channel * DIM
        for M in tl.static_range(DIM):
            along = tl.load(at_g + M, mask=mask, other=0.0)
            to_scalar += along * tl.load(x + column + M, mask=mask, other=0.0)
            tl.store(to_x + column + M, along * value * CONSTANT, mask=mask)
    tl.store(_scalars(to_x, channel, SEGMENTS, SEGMENT), to_scalar * slope * CONSTANT, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def gate_vjp_grad(
    to_x, to_g, x, g, c, rows, SEGMENTS: tl.constexpr, WIDTH_IN: tl.constexpr, WIDTH_OUT: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """to_x [rows, WIDTH_IN] and to_g [rows, WIDTH_OUT]: the derivatives of c · gate_vjp by x and g."""
    row, real = rows_of_program(tl.program_id(0), rows, ROWS)
    for SEGMENT in tl.static_range(count_segments(SEGMENTS)):
        for start in range(0, segment_entry(SEGMENTS, SEGMENT, 3), CHANNELS):
            _gate_vjp_grad_segment(
                to_x + row * WIDTH_IN, to_g + row * WIDTH_OUT, x + row * WIDTH_IN, g + row * WIDTH_OUT,
                c + row * WIDTH_IN, real, start, SEGMENTS, SEGMENT, CHANNELS,
            )  # fmt: skip


@triton.jit
def _gate_vjp_grad_segment(
    to_x, to_g, x, g, c, real, start, SEGMENTS: tl.constexpr, SEGMENT: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    DIM: tl.constexpr = segment_entry(SEGMENTS, SEGMENT, 4)
    CONSTANT: tl.constexpr = segment_entry(SEGMENTS, SEGMENT, 6)
    channel = start + tl.arange(0, CHANNELS)[None, :]
    mask = real & (channel < segment_entry(SEGMENTS, SEGMENT, 3))
    scalar = tl.load(_scalars(x, channel, SEGMENTS, SEGMENT), mask=mask, other=0.0)
    along_scalar = tl.load(_scalars(c, channel, SEGMENTS, SEGMENT), mask=mask, other=0.0)
    value, slope, curvature = activate(scalar, segment_entry(SEGMENTS, SEGMENT, 5))
    at_g = segment_entry(SEGMENTS, SEGMENT, 2) + channel * DIM
    to_scalar = tl.zeros_like(scalar)
    if segment_entry(SEGMENTS, SEGMENT, 1) < 0:
        to_scalar += along_scalar * tl.load(g + at_g, mask=mask, other=0.0) * curvature
        tl.store(to_g + at_g, along_scalar * slope * CONSTANT, mask=mask)
    else:
        column = segment_entry(SEGMENTS, SEGMENT, 0) + channel * DIM
        for M in tl.static_range(DIM):
            cotangent = tl.load(g + at_g + M, mask=mask, other=0.0)
            gated = tl.load(x + column + M, mask=mask, other=0.0)
            along = tl.load(c + column + M, mask=mask, other=0.0)
            tl.store(to_x + column + M, along_scalar * cotangent * slope * CONSTANT, mask=mask)
            tl.store(to_g + at_g + M, (along * value + along_scalar * gated * slope) * CONSTANT, mask=mask)
            to_scalar += cotangent * (along * slope + along_scalar * gated * curvature)
    tl.store(_scalars(to_x, channel, SEGMENTS, SEGMENT), to_scalar * CONSTANT, mask=mask)


@triton.jit
def _scalars(x, channel, SEGMENTS: tl.constexpr, SEGMENT: tl.constexpr):
    """Where the scalars lie that are activated: of the segment itself, or its gates."""
    if segment_entry(SEGMENTS, SEGMENT, 1) < 0:
        return x + segment_entry(SEGMENTS, SEGMENT, 0) + channel
    else:
        return x + segment_entry(SEGMENTS, SEGMENT, 1) + channel
