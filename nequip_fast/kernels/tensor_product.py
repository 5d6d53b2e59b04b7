"""The kernels of ``tensor_product``, for each mode and each of its derivatives.

:mod:`nequip_fast.kernels.product_table` says what TABLE, a, b and target are. A block is [ROWS, LANES]: rows of the
batch and channels of the target. ROW_A, ROW_B, ROW_W: how far the rows of an operand are apart, 0 where one is shared.

Where a mode mixes channels and the weights are shared, matrices of weights multiply blocks of PAIRS of channels on the
tensor cores or, with PRECISION "ieee", as fused multiply-adds.
"""

import triton
import triton.language as tl

from nequip_fast.kernels.blocks import add_products, added, load_components, rows_of_program, times, zeros, zeros_like
from nequip_fast.kernels.product_table import (
    count_pairs,
    count_partners,
    mixes,
    relation,
    weight_blocks_before,
)
from nequip_fast.kernels.table import (
    blocks_before,
    channels_of,
    count_groups,
    count_paths,
    output_column,
    output_components,
    path_entry,
)


@triton.jit(do_not_specialize=["rows"])
def contract(
    out, a, b, w, rows,
    TABLE: tl.constexpr, TARGET: tl.constexpr, WIDTH: tl.constexpr,
    ROW_A: tl.constexpr, ROW_B: tl.constexpr, ROW_W: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out [rows, WIDTH], the target, from a and b: a program has a block of rows and one of channels of one irrep."""
    BLOCKS: tl.constexpr = blocks_before(TABLE, count_groups(TABLE), LANES)
    block = tl.program_id(0) % BLOCKS
    row, real = rows_of_program(tl.program_id(0) // BLOCKS, rows, ROWS)
    at_a, real_a = _rows_of_operand(row, real, ROW_A)
    at_b, real_b = _rows_of_operand(row, real, ROW_B)
    at_w, real_w = _rows_of_operand(row, real, ROW_W)
    for GROUP in tl.static_range(count_groups(TABLE)):
        if (block >= blocks_before(TABLE, GROUP, LANES)) & (block < blocks_before(TABLE, GROUP + 1, LANES)):
            COMPONENTS: tl.constexpr = output_components(TABLE, GROUP, 0)
            channel = (block - blocks_before(TABLE, GROUP, LANES)) * LANES + tl.arange(0, LANES)[None, :]
            lane = tl.minimum(channel, channels_of(TABLE, GROUP) - 1)  # what is beyond is computed, and not stored
            sums = zeros(COMPONENTS, ROWS, LANES, out)
            for PATH in tl.static_range(count_paths(TABLE, GROUP)):
                sums = _add_path(
                    sums, a + at_a, b + at_b, w + at_w, lane, real_a, real_b, real_w,
                    TABLE, GROUP, PATH, TARGET, ROW_W == 0, ROWS, LANES, PAIRS, PRECISION,
                )  # fmt: skip
            at = out + row * WIDTH + output_column(TABLE, GROUP, 0) + channel * COMPONENTS
            for M in tl.static_range(COMPONENTS):
                tl.store(at + M, sums[M], mask=real & (channel < channels_of(TABLE, GROUP)))


@triton.jit
def _rows_of_operand(row, real, STRIDE: tl.constexpr):
    """Where rows begin, and which there are: a block of one row where it is shared."""
    if STRIDE == 0:
        return tl.zeros((1, 1), tl.int64), tl.full((1, 1), 1, tl.int1)
    else:
        return row * STRIDE, real


@triton.jit
def _add_path(
    sums, a, b, w, lane, real_a, real_b, real_w,
    TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr, TARGET: tl.constexpr, SHARED: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    MODE: tl.constexpr = path_entry(TABLE, GROUP, PATH, 9)
    a += path_entry(TABLE, GROUP, PATH, 0)
    b += path_entry(TABLE, GROUP, PATH, 1)
    w += path_entry(TABLE, GROUP, PATH, 2)
    if mixes(MODE) and TARGET == "out":
        if SHARED:
            return _mixed_by_matrix(
                sums, a, b, w, lane, real_a, real_b, TABLE, GROUP, PATH, ROWS, PAIRS, PRECISION
            )  # fmt: skip
        else:
            return _mixed(sums, a, b, w, lane, real_a, real_b, real_w, TABLE, GROUP, PATH)
    elif mixes(MODE):
        return _unmixed(
            sums, a, b, w, lane, real_a, real_b, real_w,
            TABLE, GROUP, PATH, TARGET, SHARED, ROWS, LANES, PAIRS, PRECISION,
        )  # fmt: skip
    else:
        return _by_pairs(sums, a, b, w, lane, real_a, real_b, real_w, TABLE, GROUP, PATH, TARGET)


@triton.jit
def _by_pairs(
    sums, a, b, w, lane, real_a, real_b, real_w,
    TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """Each pair of channels has one of the output, and one weight or none."""
    MODE: tl.constexpr = path_entry(TABLE, GROUP, PATH, 9)
    MUL1: tl.constexpr = path_entry(TABLE, GROUP, PATH, 10)
    MUL2: tl.constexpr = path_entry(TABLE, GROUP, PATH, 11)
    N: tl.constexpr = path_entry(TABLE, GROUP, PATH, 5)
    for i in range(count_partners(TARGET, MODE, MUL1, MUL2)):
        u, v, exists = _pair_of_lane(lane, i, MODE, TARGET, MUL1, MUL2)
        pair = _number_of_pair(u, v, MODE, MUL2)
        if TARGET == "out":
            source, partner = load_components(a + u * N, real_a, N, 1), v
        elif TARGET == "x":
            source, partner = load_components(a + _channel_of_output(u, v, pair, MODE) * N, real_a, N, 1), v
        else:
            source, partner = load_components(a + _channel_of_output(u, v, pair, MODE) * N, real_a, N, 1), u
        if path_entry(TABLE, GROUP, PATH, 3) > 0:
            source = times(source, tl.load(w + pair, mask=real_w, other=0.0), N)
        if TARGET != "out" and relation(MODE) == "less":
            source = times(source, exists, N)
        b_row = b + partner * path_entry(TABLE, GROUP, PATH, 6)
        sums = add_products(sums, source, b_row, real_b, TABLE, GROUP, PATH, 0)
    return sums


@triton.jit
def _mixed(sums, a, b, w, lane, real_a, real_b, real_w, TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr):
    """All pairs to the channels of the output, each row with weights of its own."""
    MODE: tl.constexpr = path_entry(TABLE, GROUP, PATH, 9)
    N3: tl.constexpr = path_entry(TABLE, GROUP, PATH, 7)
    for pair in range(count_pairs(MODE, path_entry(TABLE, GROUP, PATH, 10), path_entry(TABLE, GROUP, PATH, 11))):
        product = _product_of_pair(a, b, tl.full((1, 1), pair, tl.int32), real_a, real_b, TABLE, GROUP, PATH)
        weight = _mixing_weight(w, pair, lane, real_w, sums[0], TABLE, GROUP, PATH)
        sums = added(sums, times(product, weight, N3), 0, N3)
    return sums


@triton.jit
def _mixed_by_matrix(
    sums, a, b, w, lane, real_a, real_b,
    TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr,
    ROWS: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All pairs to the channels of the output, by the one matrix of weights."""
    MODE: tl.constexpr = path_entry(TABLE, GROUP, PATH, 9)
    COUNT: tl.constexpr = count_pairs(MODE, path_entry(TABLE, GROUP, PATH, 10), path_entry(TABLE, GROUP, PATH, 11))
    for start in range(0, COUNT, PAIRS):
        pair = start + tl.arange(0, PAIRS)
        inside = pair < COUNT
        pair = tl.minimum(pair, COUNT - 1)
        product = _product_of_pair(a, b, pair[None, :], real_a, real_b, TABLE, GROUP, PATH)
        weight = _mixing_weight(w, pair[:, None], lane, inside[:, None], sums[0], TABLE, GROUP, PATH)
        for M in tl.static_range(path_entry(TABLE, GROUP, PATH, 7)):
            left = tl.broadcast_to(product[M], (ROWS, PAIRS))
            sums = added(sums, (tl.dot(left, weight, input_precision=PRECISION, out_dtype=weight.dtype),), M, 1)
    return sums


@triton.jit
def _unmixed(
    sums, a, b, w, lane, real_a, real_b, real_w,
    TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr, TARGET: tl.constexpr, SHARED: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """To x or y from all channels of the output: these are summed, with weights, before they meet b."""
    MODE: tl.constexpr = path_entry(TABLE, GROUP, PATH, 9)
    MUL1: tl.constexpr = path_entry(TABLE, GROUP, PATH, 10)
    MUL2: tl.constexpr = path_entry(TABLE, GROUP, PATH, 11)
    MUL3: tl.constexpr = path_entry(TABLE, GROUP, PATH, 12)
    N3: tl.constexpr = path_entry(TABLE, GROUP, PATH, 5)
    for i in range(count_partners(TARGET, MODE, MUL1, MUL2)):
        u, v, exists = _pair_of_lane(lane, i, MODE, TARGET, MUL1, MUL2)
        pair = _number_of_pair(u, v, MODE, MUL2)
        cotangent = zeros_like(sums[0], N3)
        if SHARED:
            for start in range(0, MUL3, PAIRS):
                k = start + tl.arange(0, PAIRS)
                weight = _mixing_weight(w, pair, k[:, None], exists & (k < MUL3)[:, None], sums[0], TABLE, GROUP, PATH)
                k = k[None, :]
                for M in tl.static_range(N3):
                    left = tl.load(a + k * N3 + M, mask=real_a & (k < MUL3), other=0.0)
                    left = tl.broadcast_to(left, (ROWS, PAIRS))
                    product = tl.dot(left, weight, input_precision=PRECISION, out_dtype=weight.dtype)
                    cotangent = added(cotangent, (product,), M, 1)
        else:
            for k in range(MUL3):
                weight = _mixing_weight(w, pair, k, real_w & exists, sums[0], TABLE, GROUP, PATH)
                source = load_components(a + k * N3, real_a, N3, 1)
                cotangent = added(cotangent, times(source, weight, N3), 0, N3)
        partner = v
        if TARGET == "y":
            partner = u
        b_row = b + partner * path_entry(TABLE, GROUP, PATH, 6)
        sums = add_products(sums, cotangent, b_row, real_b, TABLE, GROUP, PATH, 0)
    return sums


@triton.jit(do_not_specialize=["rows", "chunk"])
def contract_weights(
    out, a, b, g, rows, chunk,
    TABLE: tl.constexpr, WIDTH: tl.constexpr, ROW_A: tl.constexpr, ROW_B: tl.constexpr, ROW_G: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out [chunks, WIDTH]: the gradients of shared weights, of so many rows each."""
    BLOCKS: tl.constexpr = weight_blocks_before(TABLE, count_groups(TABLE), PAIRS, LANES)
    block = tl.program_id(0) % BLOCKS
    number = (tl.program_id(0) // BLOCKS).to(tl.int64)
    for GROUP in tl.static_range(count_groups(TABLE)):
        number_in_path = block - weight_blocks_before(TABLE, GROUP, PAIRS, LANES)
        if (number_in_path >= 0) & (block < weight_blocks_before(TABLE, GROUP + 1, PAIRS, LANES)):
            if mixes(path_entry(TABLE, GROUP, 0, 9)):
                _matrix_of_weights(
                    out + number * WIDTH, a, b, g, number * chunk, tl.minimum(rows, (number + 1) * chunk),
                    number_in_path, TABLE, GROUP, ROW_A, ROW_B, ROW_G, ROWS, LANES, PAIRS, PRECISION,
                )  # fmt: skip
            else:
                _weights_of_pairs(
                    out + number * WIDTH, a, b, g, number * chunk, tl.minimum(rows, (number + 1) * chunk),
                    number_in_path, TABLE, GROUP, ROW_A, ROW_B, ROW_G, ROWS, LANES,
                )  # fmt: skip


@triton.jit
def _matrix_of_weights(
    out, a, b, g, begin, end, block, TABLE: tl.constexpr, GROUP: tl.constexpr,
    ROW_A: tl.constexpr, ROW_B: tl.constexpr, ROW_G: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A block [PAIRS, LANES] of one path's matrix."""
    MODE: tl.constexpr = path_entry(TABLE, GROUP, 0, 9)
    MUL3: tl.constexpr = path_entry(TABLE, GROUP, 0, 12)
    N3: tl.constexpr = path_entry(TABLE, GROUP, 0, 7)
    COUNT: tl.constexpr = count_pairs(MODE, path_entry(TABLE, GROUP, 0, 10), path_entry(TABLE, GROUP, 0, 11))
    ACROSS: tl.constexpr = (MUL3 + LANES - 1) // LANES
    pair = block // ACROSS * PAIRS + tl.arange(0, PAIRS)
    k = block % ACROSS * LANES + tl.arange(0, LANES)[None, :]
    inside = pair < COUNT
    total = tl.zeros((PAIRS, LANES), out.dtype.element_ty)
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)[:, None]
        real = row < end
        at_a, real_a = _rows_of_operand(row, real, ROW_A)
        at_b, real_b = _rows_of_operand(row, real, ROW_B)
        product = _product_of_pair(
            a + at_a + path_entry(TABLE, GROUP, 0, 0), b + at_b + path_entry(TABLE, GROUP, 0, 1),
            tl.minimum(pair, COUNT - 1)[None, :], real_a, real_b, TABLE, GROUP, 0,
        )  # fmt: skip
        at_g = g + row * ROW_G + path_entry(TABLE, GROUP, 0, 13)
        for M in tl.static_range(N3):
            right = tl.load(at_g + k * N3 + M, mask=real & (k < MUL3), other=0.0)
            left = tl.trans(tl.broadcast_to(product[M], (ROWS, PAIRS)))
            total += tl.dot(left, right, input_precision=PRECISION, out_dtype=total.dtype)
    at = out + path_entry(TABLE, GROUP, 0, 2) + pair[:, None] * MUL3 + k
    tl.store(at, total, mask=inside[:, None] & (k < MUL3))


@triton.jit
def _weights_of_pairs(
    out, a, b, g, begin, end, block, TABLE: tl.constexpr, GROUP: tl.constexpr,
    ROW_A: tl.constexpr, ROW_B: tl.constexpr, ROW_G: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A block [LANES] of the weights of one path, one for each pair."""
    pair = block * LANES + tl.arange(0, LANES)[None, :]
    inside = pair < channels_of(TABLE, GROUP)
    total = tl.zeros((ROWS, LANES), out.dtype.element_ty)
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)[:, None]
        total += _gradients_of_weights(a, b, g, row, row < end, pair, TABLE, GROUP, ROW_A, ROW_B, ROW_G)
    tl.store(out + path_entry(TABLE, GROUP, 0, 2) + pair, tl.sum(total, 0)[None, :], mask=inside)


@triton.jit(do_not_specialize=["rows"])
def contract_weights_of_rows(
    out, a, b, g, rows,
    TABLE: tl.constexpr, WIDTH: tl.constexpr, ROW_A: tl.constexpr, ROW_B: tl.constexpr, ROW_G: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """out [rows, WIDTH]: the gradients of weights where each row has its own."""
    BLOCKS: tl.constexpr = blocks_before(TABLE, count_groups(TABLE), LANES)
    block = tl.program_id(0) % BLOCKS
    row, real = rows_of_program(tl.program_id(0) // BLOCKS, rows, ROWS)
    for GROUP in tl.static_range(count_groups(TABLE)):
        if (block >= blocks_before(TABLE, GROUP, LANES)) & (block < blocks_before(TABLE, GROUP + 1, LANES)):
            weight = (block - blocks_before(TABLE, GROUP, LANES)) * LANES + tl.arange(0, LANES)[None, :]
            value = _gradients_of_weights(a, b, g, row, real, weight, TABLE, GROUP, ROW_A, ROW_B, ROW_G)
            inside = weight < channels_of(TABLE, GROUP)
            tl.store(out + row * WIDTH + path_entry(TABLE, GROUP, 0, 2) + weight, value, mask=real & inside)


@triton.jit
def _gradients_of_weights(
    a, b, g, row, real, weight, TABLE: tl.constexpr, GROUP: tl.constexpr,
    ROW_A: tl.constexpr, ROW_B: tl.constexpr, ROW_G: tl.constexpr,
):  # fmt: skip
    """[rows, weights] of the only path of a group."""
    MODE: tl.constexpr = path_entry(TABLE, GROUP, 0, 9)
    MUL3: tl.constexpr = path_entry(TABLE, GROUP, 0, 12)
    at_a, real_a = _rows_of_operand(row, real, ROW_A)
    at_b, real_b = _rows_of_operand(row, real, ROW_B)
    weight = tl.minimum(weight, channels_of(TABLE, GROUP) - 1)
    if mixes(MODE):
        pair, k = weight // MUL3, weight % MUL3
    else:
        u, v = _channels_of_pair(
            weight, MODE, path_entry(TABLE, GROUP, 0, 10), path_entry(TABLE, GROUP, 0, 11)
        )  # fmt: skip
        pair, k = weight, _channel_of_output(u, v, weight, MODE)
    product = _product_of_pair(
        a + at_a + path_entry(TABLE, GROUP, 0, 0), b + at_b + path_entry(TABLE, GROUP, 0, 1),
        pair, real_a, real_b, TABLE, GROUP, 0,
    )  # fmt: skip
    N3: tl.constexpr = path_entry(TABLE, GROUP, 0, 7)
    at_g = g + row * ROW_G + path_entry(TABLE, GROUP, 0, 13) + k * N3
    total = product[0] * tl.load(at_g, mask=real, other=0.0)
    for M in tl.static_range(1, N3):
        total += product[M] * tl.load(at_g + M, mask=real, other=0.0)
    return total


# --- pairs of channels ---


@triton.jit
def _product_of_pair(
    a, b, pair, real_a, real_b, TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr
):  # fmt: skip
    """Σ_{m1, m2} C(m1, m2, m3) x[u, m1] y[v, m2] for each m3."""
    u, v = _channels_of_pair(
        pair, path_entry(TABLE, GROUP, PATH, 9), path_entry(TABLE, GROUP, PATH, 10), path_entry(TABLE, GROUP, PATH, 11)
    )
    N: tl.constexpr = path_entry(TABLE, GROUP, PATH, 5)
    source = load_components(a + u * N, real_a, N, 1)
    b += v * path_entry(TABLE, GROUP, PATH, 6)
    products = zeros_like(source[0] + tl.load(b, mask=real_b, other=0.0), path_entry(TABLE, GROUP, PATH, 7))
    return add_products(products, source, b, real_b, TABLE, GROUP, PATH, 0)


@triton.jit
def _mixing_weight(
    w, pair, k, mask, like, TABLE: tl.constexpr, GROUP: tl.constexpr, PATH: tl.constexpr
):  # fmt: skip
    """From a pair to a channel of the output, of the type of ``like``; 1 without weights."""
    if path_entry(TABLE, GROUP, PATH, 3) > 0:
        return tl.load(w + pair * path_entry(TABLE, GROUP, PATH, 12) + k, mask=mask, other=0.0)
    else:
        return (mask & (pair + k >= 0)).to(like.dtype)


@triton.jit
def _pair_of_lane(
    lane, i, MODE: tl.constexpr, TARGET: tl.constexpr, MUL1: tl.constexpr, MUL2: tl.constexpr
):  # fmt: skip
    """(u, v, whether there is such a pair) of the i-th pair in which a channel of the target has a part."""
    exists = lane >= 0
    if TARGET == "out":
        if MODE == "uvu":
            return lane, i, exists
        elif MODE == "uvv":
            return i, lane, exists
        else:
            u, v = _channels_of_pair(lane, MODE, MUL1, MUL2)
            return u, v, exists
    elif relation(MODE) == "same":
        return lane, lane, exists
    elif TARGET == "x":
        if relation(MODE) == "less":
            exists = lane < i
        return lane, i, exists
    else:
        if relation(MODE) == "less":
            exists = i < lane
        return i, lane, exists


@triton.jit
def _number_of_pair(u, v, MODE: tl.constexpr, MUL2: tl.constexpr):
    if relation(MODE) == "all":
        return u * MUL2 + v
    elif relation(MODE) == "same":
        return u
    else:
        return tl.maximum(u * (2 * MUL2 - u - 1) // 2 + v - u - 1, 0)  # of no pair where not u < v


@triton.jit
def _channels_of_pair(pair, MODE: tl.constexpr, MUL1: tl.constexpr, MUL2: tl.constexpr):
    """(u, v): the inverse of the above."""
    if relation(MODE) == "all":
        return pair // MUL2, pair % MUL2
    elif relation(MODE) == "same":
        return pair, pair
    else:
        root = tl.sqrt(((2 * MUL1 - 1) * (2 * MUL1 - 1) - 8 * pair).to(tl.float32))
        u = ((2 * MUL1 - 1 - root) / 2).to(tl.int32)
        u = tl.where(u * (2 * MUL1 - u - 1) // 2 > pair, u - 1, u)  # what rounding may have moved
        u = tl.where((u + 1) * (2 * MUL1 - u - 2) // 2 <= pair, u + 1, u)
        return u, pair - u * (2 * MUL1 - u - 1) // 2 + u + 1


@triton.jit
def _channel_of_output(u, v, pair, MODE: tl.constexpr):
    if MODE == "uvu" or MODE == "uuu":
        return u
    elif MODE == "uvv":
        return v
    else:
        return pair
