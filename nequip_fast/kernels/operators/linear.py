"""``linear``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from nequip_fast.kernels import linear
from nequip_fast.kernels.operators.launch import contiguous, launch, operator
from nequip_fast.kernels.tuning import Tile

KERNELS = [linear.linear]
_TILES = [
    {"ROWS": rows, "COLUMNS": columns, "num_warps": warps}
    for rows, columns, warps in ((16, 32, 2), (16, 32, 1), (32, 32, 4), (64, 64, 4), (128, 64, 4))
]


@operator("nequip_fast::triton_linear", mutates_args={})
def triton_linear(x: Tensor, w: Tensor, counts: Sequence[int], width: int, text: str, precision: str) -> Tensor:
    """[N, width] from x [N, …]: the maps in ``text`` with the weights w[k] for the next ``counts[k]`` rows."""
    out = x.new_empty(x.shape[0], width)
    (x, w), begin = contiguous(x, w), 0
    for k, count in enumerate(counts):
        if count:
            some = slice(begin, begin + count)
            launch(
                linear.linear, partial(_programs, text, count), out[some], x[some], w[k], count, tiles=_TILES,
                TABLE=text, WIDTH_IN=x.shape[1], WIDTH_OUT=width, PRECISION=precision,
            )  # fmt: skip
        begin += count
    return out


def _programs(text: str, rows: int, tile: Tile) -> Any:
    return linear.programs_of(text, rows, tile["ROWS"], tile["COLUMNS"])
