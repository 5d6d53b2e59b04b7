"""``hermite``."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from nequip_fast.kernels import hermite
from nequip_fast.kernels.operators.launch import contiguous, launch, operator

KERNELS = [hermite.hermite]


@operator("nequip_fast::triton_hermite", mutates_args={})
def triton_hermite(x: Tensor, knots: Tensor, single: bool) -> tuple[Tensor, Tensor, Tensor]:
    """``interval_rows`` of :mod:`nequip_fast.engine.hermite`; ``single``: values and slopes are float32."""
    edges, count = x.shape[0], int(knots.shape[0])
    first = x.new_empty(edges, dtype=torch.int64)
    values, slopes = (x.new_empty(edges, 6, dtype=torch.float32 if single else torch.float64) for _ in range(2))
    launch(
        hermite.hermite, lambda tile: triton.cdiv(edges, tile["SIZE"]), first, values, slopes, *contiguous(x, knots),
        edges, tiles=[{"SIZE": 32 * warps, "num_warps": warps} for warps in (4, 1, 2)],
        KNOTS=count, DIGITS=(count - 1).bit_length(),
    )  # fmt: skip
    return first, values, slopes
