"""The kernel of ``segment_sum``."""

import triton
import triton.language as tl


@triton.jit
def segment_sum(
    out, m, pointer, order, WIDTH: tl.constexpr, BLOCKS: tl.constexpr, EDGES: tl.constexpr, COLUMNS: tl.constexpr
):
    """out [N, WIDTH]: a program sums COLUMNS columns of the rows of one node's edges, EDGES at a time."""
    node = (tl.program_id(0) // BLOCKS).to(tl.int64)
    column = tl.program_id(0) % BLOCKS * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = column < WIDTH
    total = tl.zeros((EDGES, COLUMNS), out.dtype.element_ty)
    end = tl.load(pointer + node + 1)
    for start in range(tl.load(pointer + node), end, EDGES):
        place = start + tl.arange(0, EDGES)[:, None]
        edge = tl.load(order + place, mask=place < end, other=0)
        total += tl.load(m + edge * WIDTH + column, mask=(place < end) & inside, other=0.0)
    tl.store(out + node * WIDTH + column, tl.sum(total, 0)[None, :], mask=inside)
