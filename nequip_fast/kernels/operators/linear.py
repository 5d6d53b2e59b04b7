"""``linear``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import islice
from json import dumps
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
    """[N, width] from x [N, …]: the maps in ``text`` with the weights w[k] for the next ``counts[k]`` rows.

    ``text``: see csrc/problems/linear.h; ``precision``: of products of float32, see tl.dot.
    """
    out = x.new_empty(x.shape[0], width)
    (x, w), begin, table = contiguous(x, w), 0, _linear_table(text)
    for k, count in enumerate(counts):
        if count:
            some = slice(begin, begin + count)
            launch(
                linear.linear, partial(_programs, table, count), out[some], x[some], w[k], count, tiles=_TILES,
                TABLE=table, WIDTH_IN=x.shape[1], WIDTH_OUT=width, PRECISION=precision,
            )  # fmt: skip
        begin += count
    return out


@lru_cache(maxsize=256)
def _linear_table(text: str) -> str:
    """As the kernel reads it."""
    numbers, targets = iter(map(int, text.split()[2:])), []
    for column in numbers:
        channels, components, count = islice(numbers, 3)
        targets.append([column, channels, components, [list(islice(numbers, 3)) for _ in range(count)]])
    return dumps(targets, separators=(",", ":"))


def _programs(text: str, rows: int, tile: Tile) -> Any:
    return linear.programs_of(text, rows, tile["ROWS"], tile["COLUMNS"])
