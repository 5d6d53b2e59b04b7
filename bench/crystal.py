"""Periodic structures of any size with their pairs, without a neighbour search: copies of one block of 64 atoms."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SIDE = 4  # atoms along an edge of the block


class Crystal(NamedTuple):
    """What an engine evaluates: see :meth:`nequip_fast.engine.on_device.DeviceEngine.evaluate`."""

    positions: Tensor
    types: Tensor
    structure: Tensor
    cells: Tensor
    pairs: tuple[Tensor, Tensor, Tensor]


def crystal(copies: int, types: int, cutoff: float, neighbours: float, skin: float = 0.5) -> Crystal:
    """A shaken cubic lattice of 64 · copies³ atoms, all pairs within ``cutoff + skin``.

    Args:
        copies: of the block along each axis.
        types: the atoms' types are 0 … types − 1 in turn.
        cutoff, skin: Å.
        neighbours: of an atom within the cutoff, about.
    """
    spacing = (4 / 3 * torch.pi * cutoff**3 / neighbours) ** (1 / 3)
    length = _SIDE * spacing
    generator = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(*[torch.arange(_SIDE, dtype=torch.float64)] * 3)
    block = spacing * (grid + 0.1 * (torch.rand(grid.shape, generator=generator, dtype=torch.float64) - 0.5))
    i, j, shift = _pairs(block, length, cutoff + skin)

    places = torch.cartesian_prod(*[torch.arange(copies)] * 3)  # of the copies
    reached = places.unsqueeze(1) + shift  # [copies³, P, 3]
    wrapped = reached % copies
    number = (wrapped[..., 0] * copies + wrapped[..., 1]) * copies + wrapped[..., 2]
    neighbour = (number * len(block) + j).flatten().to(torch.int32)
    ends = torch.bincount(i, minlength=len(block)).repeat(copies**3).cumsum(0)
    positions = (block + length * places.unsqueeze(1)).reshape(-1, 3)
    return Crystal(
        positions,
        torch.arange(len(positions)) % types,
        torch.zeros(len(positions), dtype=torch.int64),
        (copies * length * torch.eye(3, dtype=torch.float64)).reshape(1, 9),
        (
            torch.cat([ends.new_zeros(1), ends]),
            neighbour,
            ((reached - wrapped) // copies).flatten(0, 1).to(torch.int32),
        ),
    )


def _pairs(block: Tensor, length: float, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """(i, j, shift [P, 3]) of a block in a periodic cube, by i."""
    most = int(cutoff // length) + 1
    shifts = torch.cartesian_prod(*[torch.arange(-most, most + 1)] * 3)
    vectors = block[None, :, None] - block[:, None, None] + length * shifts
    near = vectors.square().sum(-1) < cutoff**2
    near &= ~((shifts == 0).all(1) & torch.eye(len(block), dtype=torch.bool).unsqueeze(2))
    i, j, k = near.nonzero(as_tuple=True)
    return i, j, shifts[k]
