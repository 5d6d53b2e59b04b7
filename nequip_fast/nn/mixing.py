"""Which input channels of an irrep mix into which output channels: what Linear and SelfConnection share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from e3nn.o3 import Irreps
from torch import Tensor


class Path(NamedTuple):
    """Input block ``i_in`` (``mul_in`` copies of an irrep) feeds an output block of ``mul_out`` copies."""

    i_in: int
    i_out: int
    mul_in: int
    mul_out: int


def mixing_paths(irreps_in: Irreps, irreps_out: Irreps) -> list[Path]:
    """All pairs of blocks with the same irrep, input-major: the order in which e3nn stores their weights."""
    return [
        Path(i_in, i_out, mul_in, mul_out)
        for i_in, (mul_in, ir_in) in enumerate(irreps_in)
        for i_out, (mul_out, ir_out) in enumerate(irreps_out)
        if ir_in == ir_out
    ]


def fan_in(paths: list[Path], i_out: int) -> int:
    """Number of input channels summed into each channel of output block ``i_out``."""
    return sum(path.mul_in for path in paths if path.i_out == i_out)


def components_last(x: Tensor, dim: int) -> Tensor:
    """[N, mul·dim] -> [N, dim, mul]: one row of channels per component, ready for a matrix product."""
    return x.reshape(x.shape[0], x.shape[1] // dim, dim).transpose(1, 2)


def block_dims(irreps: Irreps) -> list[int]:
    """Sizes that split a feature vector into its blocks."""
    return [block.dim for block in irreps]


def sum_into_blocks(terms: Iterable[tuple[int, Tensor]], irreps_out: Irreps, x: Tensor) -> Tensor:
    """Terms ``(i_out, [N, block.dim])`` added up block by block, [N, irreps_out.dim]; zeros where there is none.

    Args:
        x: any tensor [N, ...] of the dtype and device wanted.
    """
    blocks: list[Tensor | None] = [None] * len(irreps_out)
    for i_out, term in terms:
        present = blocks[i_out]
        blocks[i_out] = term if present is None else present + term
    return torch.cat(
        [
            x.new_zeros(x.shape[0], ir.dim) if block is None else block
            for block, ir in zip(blocks, irreps_out, strict=True)
        ],
        dim=1,
    )
