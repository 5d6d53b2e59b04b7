"""``segment_sum``."""

from __future__ import annotations

import triton
from torch import Tensor

from nequip_fast.kernels import segment_sum
from nequip_fast.kernels.operators.launch import indices, launch, operator

KERNELS = [segment_sum.segment_sum]


@operator("nequip_fast::triton_segment_sum", mutates_args={})
def triton_segment_sum(m: Tensor, ptr: Tensor, order: Tensor, receiver: Tensor) -> Tensor:
    """``segment_sum``."""
    width, nodes = int(m.shape[1]), ptr.shape[0] - 1
    columns = min(128, triton.next_power_of_2(max(width, 1)))
    blocks = triton.cdiv(width, columns)
    out = m.new_empty(nodes, width)
    launch(
        segment_sum.segment_sum, lambda tile: nodes * blocks, out, m.contiguous(), *indices(ptr, order),
        tiles=[{"EDGES": max(1, 64 * warps * 2 // columns), "num_warps": warps} for warps in (2, 1, 4)],
        WIDTH=width, BLOCKS=max(1, blocks), COLUMNS=columns,
    )  # fmt: skip
    return out
