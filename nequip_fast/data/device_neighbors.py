"""Neighbour lists that are searched for on a GPU and stay there."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nequip_fast.data.neighbors import HAIR, Pairs, VerletList, check_numbers, completed
from nequip_fast.errors import require


def verlet_list(cutoff: float, skin: float, device: torch.device) -> VerletList:
    """The list for what is evaluated on ``device``: searched there if it is a GPU and nvalchemi-toolkit-ops installed,
    else by vesin on the CPU. Arguments as :class:`VerletList`."""
    if device.type == "cuda" and find_spec("nvalchemiops") is not None:
        return DeviceVerletList(cutoff, skin, device)
    return VerletList(cutoff, skin)


class DeviceVerletList(VerletList):
    """A :class:`VerletList` whose pairs nvalchemi-toolkit-ops searches for, and that are collected on a device.

    Args:
        cutoff, skin: Å.
        device: where.
    """

    def __init__(self, cutoff: float, skin: float, device: torch.device) -> None:
        super().__init__(cutoff, skin)
        require("nvalchemiops.torch.neighbors", "gpu")
        self.device = device
        self._room = 32  # neighbours of an atom that the search has room for
        self._found: tuple[Tensor, Tensor, Tensor]

    def collected(self, positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`VerletList.collected`; on the device."""
        self._update(positions, cell, pbc)
        return self._found

    def _collect(self, points: NDArray[np.float64], box: NDArray[np.float64], periodic: NDArray[np.bool_]) -> None:
        cutoff = (self.cutoff + self.skin) * HAIR
        search = require("nvalchemiops.torch.neighbors", "gpu")
        positions = torch.from_numpy(points).to(self.device)
        none = torch.zeros(0, dtype=torch.int32, device=self.device)
        self._found = none.long(), none, none  # frees the others first
        where = {}
        if periodic.any():
            cell = torch.from_numpy(completed(box, periodic)).to(self.device)
            where = {"cell": cell.unsqueeze(0), "pbc": torch.from_numpy(periodic).to(self.device).unsqueeze(0)}
        while True:
            try:
                (i, j), ptr, *shifts = search.neighbor_list(
                    positions, cutoff, method="cell_list", return_neighbor_list=True, max_neighbors=self._room, **where
                )
                break
            except search.NeighborOverflowError:
                self._room *= 2
        shift = shifts[0] if shifts else j.new_zeros(len(j), 3)
        order = _order(i, j, shift, len(points))
        self._found = ptr.long(), j[order], shift[order]

    def _on_host(self) -> Pairs:
        ptr, j, shift = (tensor.cpu().numpy() for tensor in self._found)
        return ptr, j, shift


def _order(i: Tensor, j: Tensor, shift: Tensor, atoms: int) -> Tensor:
    """By i, then j, then shift: one number that orders like them is sorted."""
    if not len(i):
        return i.long()
    shift = shift.long()
    low = shift.min(0).values
    extent = (shift.max(0).values - low + 1).tolist()
    check_numbers(atoms, extent)
    key = i.long() * atoms + j
    for axis in range(3):
        key = key * extent[axis] + shift[:, axis] - low[axis]
    return key.argsort()
