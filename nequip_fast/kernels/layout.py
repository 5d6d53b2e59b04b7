"""Rows in e3nn's layout to channel-last ones: component m of channel u from ``u · n + m`` to ``m · channels + u``."""

import triton
import triton.language as tl

from nequip_fast.kernels.table import decoded


@triton.constexpr_function
def count_irreps(text):
    """Irreps that are copied."""
    return len(decoded(text))


@triton.constexpr_function
def irrep_entry(text, irrep, entry):
    """0: first column, 1: channels, 2: components."""
    return decoded(text)[irrep][entry]


@triton.jit
def to_channel_last(out, x, IRREPS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr):
    """out [N, WIDTH] from x [N, WIDTH], a row a program; columns of no irrep of IRREPS are left as they are."""
    row = tl.program_id(0).to(tl.int64) * WIDTH
    for IRREP in tl.static_range(count_irreps(IRREPS)):
        _copy_irrep(
            out + row, x + row, irrep_entry(IRREPS, IRREP, 0), irrep_entry(IRREPS, IRREP, 1),
            irrep_entry(IRREPS, IRREP, 2), SIZE,
        )  # fmt: skip


@triton.jit
def _copy_irrep(
    out, x, COLUMN: tl.constexpr, CHANNELS: tl.constexpr, COMPONENTS: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    for start in range(0, CHANNELS * COMPONENTS, SIZE):
        k = start + tl.arange(0, SIZE)
        inside = k < CHANNELS * COMPONENTS
        value = tl.load(x + COLUMN + (k % CHANNELS) * COMPONENTS + k // CHANNELS, mask=inside, other=0.0)
        tl.store(out + COLUMN + k, value, mask=inside)
