"""The kernels of ``conv``.

:mod:`nequip_fast.kernels.table` says what TABLE holds, :mod:`nequip_fast.ops.trilinear` which derivatives there are.

A block is [EDGES, CHANNELS]: lanes hold a few neighbouring channels of one edge, so what depends on the edge alone, the
matrix M of Clebsch-Gordan coefficients and harmonics, is computed once for these channels.

Rows of x are channel-last. With a tangent (dx, dy, dw) at the same place the derivative along it is computed, term by
term of the product rule; ALONG_X, ALONG_Y, ALONG_W say which of the three are not zero.

With HIDDEN > 0 the weights are formed in the kernel, w[e] = Σ_k h[e, k] matrix[first[e] + k, :] with k < HIDDEN, and
``w`` is h [E, HIDDEN]: BANDED for a table of whose rows each edge interpolates a few; else first is 0, and h a tile of
the last hidden layer that multiplies the matrix as PRECISION says.
"""

import triton
import triton.language as tl

from nequip_fast.kernels.blocks import (
    add_at,
    add_dot,
    add_products,
    added,
    load_components,
    plus_times,
    times,
    zeros,
    zeros_like,
)
from nequip_fast.kernels.table import (
    blocks_before,
    channels_of,
    coefficient_of,
    components_before,
    count_groups,
    count_m1,
    count_outputs,
    count_paths,
    count_terms,
    m1_of,
    m2_of,
    output_adds,
    output_column,
    output_components,
    path_entry,
)

AT_ONCE = tl.constexpr(32)  # columns of h that are multiplied


@triton.jit
def sum_over_edges(
    out, x, y, w, dx, dy, dw, matrix, first, pointer, order, neighbour,
    TABLE: tl.constexpr, WIDTH_X: tl.constexpr, WIDTH_Y: tl.constexpr, WIDTH_W: tl.constexpr, WIDTH_OUT: tl.constexpr,
    ALONG_X: tl.constexpr, ALONG_Y: tl.constexpr, ALONG_W: tl.constexpr,
    HIDDEN: tl.constexpr, BANDED: tl.constexpr, PRECISION: tl.constexpr,
    EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """out [N, WIDTH_OUT], in e3nn's layout: the sums of the messages of each node's edges, in their order.

    A program has one node and one block of channels of one group, and writes their outputs, or adds to what an earlier
    part wrote: no atomics.
    """
    block, node = _share_of_program(blocks_before(TABLE, count_groups(TABLE), CHANNELS), HIDDEN)
    begin, end = tl.load(pointer + node), tl.load(pointer + node + 1)
    for GROUP in tl.static_range(count_groups(TABLE)):
        if (block >= blocks_before(TABLE, GROUP, CHANNELS)) & (block < blocks_before(TABLE, GROUP + 1, CHANNELS)):
            channel = (block - blocks_before(TABLE, GROUP, CHANNELS)) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
            inside = channel < channels_of(TABLE, GROUP)
            sums = zeros(components_before(TABLE, GROUP, count_outputs(TABLE, GROUP)), EDGES, CHANNELS, out)
            for start in range(begin, end, EDGES):
                place = start + tl.arange(0, EDGES)[:, None]
                real = place < end
                edge = tl.load(order + place, mask=real, other=0)
                at_x = tl.load(neighbour + edge, mask=real, other=0) * WIDTH_X + channel
                hidden, at_w = w + edge * HIDDEN, edge * WIDTH_W
                if BANDED:
                    at_w = tl.load(first + edge, mask=real, other=0) * WIDTH_W
                for PATH in tl.static_range(count_paths(TABLE, GROUP)):
                    sums = _add_messages(
                        sums, x, y, w, dx, dy, dw, matrix, hidden, at_x, edge * WIDTH_Y, at_w,
                        channel, real, real & inside,
                        TABLE, GROUP, PATH, ALONG_X, ALONG_Y, ALONG_W, WIDTH_W, HIDDEN, BANDED, PRECISION,
                    )  # fmt: skip
            for OUTPUT in tl.static_range(count_outputs(TABLE, GROUP)):
                _store_sums(out + node * WIDTH_OUT, sums, channel, inside, TABLE, GROUP, OUTPUT)


@triton.jit
def _share_of_program(SHARES: tl.constexpr, HIDDEN: tl.constexpr):
    """(share, node or block of edges). Programs in a row have the same node, whose features are read once; or, where
    weights are formed, the same share, whose part of the matrix stays in the first cache."""
    if HIDDEN == 0:
        return tl.program_id(0) % SHARES, (tl.program_id(0) // SHARES).to(tl.int64)
    else:
        others = tl.num_programs(0) // SHARES
        return tl.program_id(0) // others, (tl.program_id(0) % others).to(tl.int64)


@triton.jit
def _weights(
    w, matrix, hidden, at_w, channel, real, mask, TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr,
    WIDTH_W: tl.constexpr, HIDDEN: tl.constexpr, BANDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The weights of one path."""
    column = path_entry(TABLE, GROUP, PATH, 2) + channel * path_entry(TABLE, GROUP, PATH, 3)
    if HIDDEN == 0:
        return tl.load(w + at_w + column, mask=mask, other=0.0)
    elif BANDED:
        total = tl.load(hidden, mask=real, other=0.0) * tl.load(matrix + at_w + column, mask=mask, other=0.0)
        for K in tl.static_range(1, HIDDEN):
            row = tl.load(matrix + at_w + K * WIDTH_W + column, mask=mask, other=0.0)
            total += tl.load(hidden + K, mask=real, other=0.0) * row
        return total
    else:
        total = tl.zeros(mask.shape, matrix.dtype.element_ty)
        for start in range(0, HIDDEN, AT_ONCE):  # a loop, so that the compiler does not keep the matrix in registers
            k = start + tl.arange(0, AT_ONCE)
            some = tl.load(hidden + k[None, :], mask=real & (k < HIDDEN)[None, :], other=0.0)
            k = k[:, None]
            inside = (k < HIDDEN) & (channel < channels_of(TABLE, GROUP))
            columns = tl.load(matrix + k * WIDTH_W + column, mask=inside, other=0.0)
            total = tl.dot(some, columns, total, input_precision=PRECISION, out_dtype=total.dtype)
        return total


@triton.jit
def _add_messages(
    sums, x, y, w, dx, dy, dw, matrix, hidden, at_x, at_y, at_w, channel, real, mask,
    TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr,
    ALONG_X: tl.constexpr, ALONG_Y: tl.constexpr, ALONG_W: tl.constexpr,
    WIDTH_W: tl.constexpr, HIDDEN: tl.constexpr, BANDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``sums`` with the messages of one path added, by component of the group's outputs."""
    COLUMN_X: tl.constexpr = path_entry(TABLE, GROUP, PATH, 0)
    COLUMN_Y: tl.constexpr = path_entry(TABLE, GROUP, PATH, 1)
    WEIGHTED: tl.constexpr = path_entry(TABLE, GROUP, PATH, 3) > 0
    FIRST: tl.constexpr = components_before(TABLE, GROUP, path_entry(TABLE, GROUP, PATH, 4))
    N1: tl.constexpr = path_entry(TABLE, GROUP, PATH, 5)
    STRIDE: tl.constexpr = channels_of(TABLE, GROUP)
    source = load_components(x + at_x + COLUMN_X, mask, N1, STRIDE)
    weighted = source
    if WEIGHTED:
        weight = _weights(
            w, matrix, hidden, at_w, channel, real, mask, TABLE, GROUP, PATH, WIDTH_W, HIDDEN, BANDED, PRECISION
        )
        weighted = times(source, weight, N1)
    at_w += path_entry(TABLE, GROUP, PATH, 2) + channel * path_entry(TABLE, GROUP, PATH, 3)
    y_row = y + at_y + COLUMN_Y
    if not (ALONG_X or ALONG_Y or ALONG_W):
        sums = add_products(sums, weighted, y_row, real, TABLE, GROUP, PATH, FIRST)
    if ALONG_X:
        along = load_components(dx + at_x + COLUMN_X, mask, N1, STRIDE)
        if WEIGHTED:
            along = times(along, weight, N1)
            if ALONG_W:
                along = plus_times(along, source, tl.load(dw + at_w, mask=mask, other=0.0), N1)
        sums = add_products(sums, along, y_row, real, TABLE, GROUP, PATH, FIRST)
    elif ALONG_W and WEIGHTED:
        along = times(source, tl.load(dw + at_w, mask=mask, other=0.0), N1)
        sums = add_products(sums, along, y_row, real, TABLE, GROUP, PATH, FIRST)
    if ALONG_Y:
        sums = add_products(sums, weighted, dy + at_y + COLUMN_Y, real, TABLE, GROUP, PATH, FIRST)
    return sums


@triton.jit
def _store_sums(row, sums, channel, inside, TABLE: tl.constexpr, GROUP: tl.constexpr, OUTPUT: tl.constexpr):
    N3: tl.constexpr = output_components(TABLE, GROUP, OUTPUT)
    at = row + output_column(TABLE, GROUP, OUTPUT) + channel * N3
    for M3 in tl.static_range(N3):
        total = tl.sum(sums[components_before(TABLE, GROUP, OUTPUT) + M3], 0)[None, :]
        if output_adds(TABLE, GROUP, OUTPUT):
            total += tl.load(at + M3, mask=inside, other=0.0)
        tl.store(at + M3, total, mask=inside)


@triton.jit(do_not_specialize=["edges"])  # one kernel for any number
def gradients_of_edges(
    to_y, to_w, x, y, w, g, dx, dy, dw, matrix, first, sender, receiver, order, edges,
    TABLE: tl.constexpr, FIRST: tl.constexpr,
    WIDTH_X: tl.constexpr, WIDTH_Y: tl.constexpr, WIDTH_W: tl.constexpr, WIDTH_OUT: tl.constexpr,
    WANT_Y: tl.constexpr, WANT_W: tl.constexpr,
    ALONG_X: tl.constexpr, ALONG_Y: tl.constexpr, ALONG_W: tl.constexpr,
    HIDDEN: tl.constexpr, BANDED: tl.constexpr, PRECISION: tl.constexpr,
    EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """to_y [groups, E, WIDTH_Y], to be summed, and to_w [E, WIDTH_W] from g, channel-last rows of the receivers.

    With HIDDEN > 0 the gradients of h take the place of to_w: [groups, E, HIDDEN], to be summed. A program has a block
    of edges and all channels of one group. FIRST: groups before those of TABLE.
    """
    group, block = _share_of_program(count_groups(TABLE), HIDDEN)
    place = block * EDGES + tl.arange(0, EDGES)[:, None]
    real = place < edges
    edge = tl.load(order + place, mask=real, other=0)
    at_x = tl.load(sender + edge, mask=real, other=0) * WIDTH_X
    at_g = tl.load(receiver + edge, mask=real, other=0) * WIDTH_OUT
    for GROUP in tl.static_range(count_groups(TABLE)):
        if group == GROUP:
            sums = zeros(WIDTH_Y, EDGES, CHANNELS, y)
            to_hidden = _no_gradients_of_hidden(y, HIDDEN, BANDED, EDGES, CHANNELS)
            hidden, at_w = w + edge * HIDDEN, edge * WIDTH_W
            if BANDED:
                at_w = tl.load(first + edge, mask=real, other=0) * WIDTH_W
            for start in range(0, channels_of(TABLE, GROUP), CHANNELS):
                channel = start + tl.arange(0, CHANNELS)[None, :]
                mask = real & (channel < channels_of(TABLE, GROUP))
                for PATH in tl.static_range(count_paths(TABLE, GROUP)):
                    sums, to_hidden = _add_gradients(
                        sums, to_hidden, to_w, x, y, w, g, dx, dy, dw, matrix, hidden,
                        at_x + channel, edge * WIDTH_Y, at_w, at_g + channel, channel, real, mask,
                        TABLE, GROUP, PATH, WANT_Y, WANT_W, ALONG_X, ALONG_Y, ALONG_W,
                        WIDTH_W, HIDDEN, BANDED, PRECISION,
                    )  # fmt: skip
            if WANT_Y:
                row = to_y + ((FIRST + GROUP) * tl.cast(edges, tl.int64) + edge) * WIDTH_Y
                for COLUMN in tl.static_range(WIDTH_Y):
                    tl.store(row + COLUMN, tl.sum(sums[COLUMN], 1)[:, None], mask=real)
            if WANT_W and HIDDEN > 0:
                row = to_w + ((FIRST + GROUP) * tl.cast(edges, tl.int64) + edge) * HIDDEN
                _store_gradients_of_hidden(row, to_hidden, real, HIDDEN, BANDED)


@triton.jit
def _add_gradients(
    sums, to_hidden, to_w, x, y, w, g, dx, dy, dw, matrix, hidden, at_x, at_y, at_w, at_g, channel, real, mask,
    TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr, WANT_Y: tl.constexpr, WANT_W: tl.constexpr,
    ALONG_X: tl.constexpr, ALONG_Y: tl.constexpr, ALONG_W: tl.constexpr,
    WIDTH_W: tl.constexpr, HIDDEN: tl.constexpr, BANDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``sums`` with the gradients of y added, not yet summed over channels; those of a path's weights written or, where
    they are formed here, those of h added to ``to_hidden``.

    Both follow from h(m2) = Σ c x[m1] g[m3]: that of a weight is Σ y[m2] h(m2), that of y[m2] the sum of w h(m2).
    """
    COLUMN_X: tl.constexpr = path_entry(TABLE, GROUP, PATH, 0)
    COLUMN_Y: tl.constexpr = path_entry(TABLE, GROUP, PATH, 1)
    WEIGHTED: tl.constexpr = path_entry(TABLE, GROUP, PATH, 3) > 0
    N1: tl.constexpr = path_entry(TABLE, GROUP, PATH, 5)
    N2: tl.constexpr = path_entry(TABLE, GROUP, PATH, 6)
    N3: tl.constexpr = path_entry(TABLE, GROUP, PATH, 7)
    STRIDE: tl.constexpr = channels_of(TABLE, GROUP)
    COLUMN_G: tl.constexpr = output_column(TABLE, GROUP, path_entry(TABLE, GROUP, PATH, 4))
    arriving = load_components(g + at_g + COLUMN_G, mask, N3, STRIDE)
    h = _coupled(load_components(x + at_x + COLUMN_X, mask, N1, STRIDE), arriving, TABLE, GROUP, PATH)
    along = h  # what y and w multiply as they are
    if ALONG_X:
        along = _coupled(load_components(dx + at_x + COLUMN_X, mask, N1, STRIDE), arriving, TABLE, GROUP, PATH)
    PLAIN: tl.constexpr = ALONG_X or not (ALONG_Y or ALONG_W)
    at_path = at_w + path_entry(TABLE, GROUP, PATH, 2) + channel * path_entry(TABLE, GROUP, PATH, 3)
    if WANT_W and WEIGHTED:
        total = tl.zeros_like(h[0])
        if PLAIN:
            total = add_dot(total, along, y + at_y + COLUMN_Y, real, N2)
        if ALONG_Y:
            total = add_dot(total, h, dy + at_y + COLUMN_Y, real, N2)
        if HIDDEN == 0:
            tl.store(to_w + at_path, total, mask=mask)
        else:
            to_hidden = _add_gradients_of_hidden(
                to_hidden, total, matrix, at_w, channel, mask, TABLE, GROUP, PATH, WIDTH_W, HIDDEN, BANDED, PRECISION
            )
    if WANT_Y:
        if PLAIN:
            if WEIGHTED:
                weight = _weights(
                    w, matrix, hidden, at_w, channel, real, mask,
                    TABLE, GROUP, PATH, WIDTH_W, HIDDEN, BANDED, PRECISION,
                )  # fmt: skip
                along = times(along, weight, N2)
            sums = added(sums, along, COLUMN_Y, N2)
        if ALONG_W and WEIGHTED:
            sums = added(sums, times(h, tl.load(dw + at_path, mask=mask, other=0.0), N2), COLUMN_Y, N2)
    return sums, to_hidden


@triton.jit
def _no_gradients_of_hidden(
    like, HIDDEN: tl.constexpr, BANDED: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr
):
    """Zeros: a block for each row that an edge interpolates, to be summed over channels; or by columns of h."""
    if BANDED:
        return zeros(HIDDEN, EDGES, CHANNELS, like)
    else:
        return zeros((HIDDEN + AT_ONCE - 1) // AT_ONCE, EDGES, AT_ONCE, like)


@triton.jit
def _add_gradients_of_hidden(
    to_hidden, to_w, matrix, at_w, channel, mask, TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr,
    WIDTH_W: tl.constexpr, HIDDEN: tl.constexpr, BANDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Σ to_w matrix."""
    column = path_entry(TABLE, GROUP, PATH, 2) + channel * path_entry(TABLE, GROUP, PATH, 3)
    if BANDED:
        for K in tl.static_range(HIDDEN):
            row = tl.load(matrix + at_w + K * WIDTH_W + column, mask=mask, other=0.0)
            to_hidden = add_at(to_hidden, K, to_w * row)
        return to_hidden
    else:
        for SOME in tl.static_range((HIDDEN + AT_ONCE - 1) // AT_ONCE):
            k = SOME * AT_ONCE + tl.arange(0, AT_ONCE)[None, :]
            inside = (k < HIDDEN) & tl.trans(channel < channels_of(TABLE, GROUP))
            columns = tl.load(matrix + k * WIDTH_W + tl.trans(column), mask=inside, other=0.0)
            product = tl.dot(to_w, columns, input_precision=PRECISION, out_dtype=to_w.dtype)
            to_hidden = add_at(to_hidden, SOME, product)
        return to_hidden


@triton.jit
def _store_gradients_of_hidden(row, to_hidden, real, HIDDEN: tl.constexpr, BANDED: tl.constexpr):
    if BANDED:
        for K in tl.static_range(HIDDEN):
            tl.store(row + K, tl.sum(to_hidden[K], 1)[:, None], mask=real)
    else:
        for SOME in tl.static_range((HIDDEN + AT_ONCE - 1) // AT_ONCE):
            k = SOME * AT_ONCE + tl.arange(0, AT_ONCE)[None, :]
            tl.store(row + k, to_hidden[SOME], mask=real & (k < HIDDEN))


@triton.jit
def _coupled(source, arriving, TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr):
    """h(m2) = Σ c source[m1] arriving[m3]."""
    h = zeros_like(arriving[0], path_entry(TABLE, GROUP, PATH, 6))
    for M3 in tl.static_range(path_entry(TABLE, GROUP, PATH, 7)):
        for I in tl.static_range(count_m1(TABLE, GROUP, PATH, M3)):
            product = source[m1_of(TABLE, GROUP, PATH, M3, I)] * arriving[M3]
            for K in tl.static_range(count_terms(TABLE, GROUP, PATH, M3, I)):
                h = add_at(
                    h, m2_of(TABLE, GROUP, PATH, M3, I, K), coefficient_of(TABLE, GROUP, PATH, M3, I, K) * product
                )
    return h
