"""Neighbour lists: every ordered pair of atoms within the cutoff, periodic images included."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nequip_fast.errors import InputError, require

MIN_DISTANCE = 1e-3
"""Atoms closer than this (Å) count as two atoms at the same place."""

HAIR = 1 + 1e-9
"""What a cutoff is multiplied with for a search, so that its rounding loses no pair: :func:`_within` alone decides."""

_MAX_NEIGHBORS = 10_000  # at solid density a cutoff near 30 Å: surely a slip, and a list that fills the memory

# ptr [N + 1], j [P], shift [P, 3]: pairs of atom i are ptr[i] … ptr[i + 1] − 1, by j, then by shift
Pairs: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]


_NONE: Pairs = (np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros((0, 3), np.int32))


def neighbor_list(positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike, cutoff: float) -> tuple[Tensor, Tensor]:
    """All pairs with ``|pos[j] - pos[i] + shift @ cell| < cutoff``, both i→j and j→i.

    Any cell will do: triclinic, left-handed, smaller than the cutoff (an atom is then a neighbour of its own images),
    periodic along some axes only; atoms may lie outside the cell. The order is fixed: by i, then j, then shift.

    Args:
        positions: [N, 3] in Å.
        cell: [3, 3], rows are lattice vectors in Å; None or zeros without periodicity.
        pbc: one bool or three.
        cutoff: Å.

    Returns:
        ``(edge_index [2, E] int64, shifts [E, 3] float64)``, row 0 of edge_index the centre i, row 1 the neighbour j.

    Raises:
        InputError: positions that are not finite, a periodic axis without a lattice vector, an unusable cutoff.
    """
    positions, cell, pbc = _checked(positions, cell, pbc, cutoff)
    return _as_tensors(_within(_candidates(positions, cell, pbc, cutoff), positions, cell, cutoff))


def overlapping_pair(positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike) -> tuple[int, int] | None:
    """Two atoms (or an atom and its image) closer than ``MIN_DISTANCE``, or None. Errors as :func:`neighbor_list`."""
    positions, cell, pbc = _checked(positions, cell, pbc, MIN_DISTANCE)
    # searched with half an ångström, because vesin lays a grid as fine as the cutoff
    ptr, j, _ = _within(_candidates(positions, cell, pbc, 0.5), positions, cell, MIN_DISTANCE)
    return (int(np.argmax(ptr > 0)) - 1, int(j[0])) if len(j) else None


class VerletList:
    """A neighbour list for molecular dynamics: rebuilt rarely, yet always equal to :func:`neighbor_list`.

    Pairs are collected up to ``cutoff + skin`` and filtered at every call. While no atom has moved more than
    ``skin / 2`` since the collection, no pair can have come closer by more than ``skin``, so none is missing; a longer
    move, or any change of cell, periodicity or number of atoms, collects anew.

    Args:
        cutoff: Å.
        skin: Å; larger means rarer collection and more pairs to filter.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        if not skin >= 0:
            raise InputError(f"skin = {skin}: give a length in Å that is zero or positive")
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.num_collections = 0
        self._reference: NDArray[np.float64] | None = None  # the positions the pairs were collected at
        self._frame = b"", b""  # their cell and periodicity
        self._pairs: Pairs

    def __call__(self, positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike) -> tuple[Tensor, Tensor]:
        """Arguments, result and errors as in :func:`neighbor_list`."""
        positions, cell = self._update(positions, cell, pbc)
        return _as_tensors(_within(self._on_host(), positions, cell, self.cutoff))

    def collected(self, positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike) -> tuple[Tensor, Tensor, Tensor]:
        """All pairs collected, those beyond the cutoff included, for callers that measure distances themselves.

        Returns:
            ``(ptr [N + 1] int64, neighbour [P] int32, shifts [P, 3] int32)``: the pairs of atom i are ``ptr[i]`` …
            ``ptr[i + 1] − 1``. Arguments and errors as in :func:`neighbor_list`.
        """
        self._update(positions, cell, pbc)
        ptr, j, shift = self._pairs
        return torch.from_numpy(ptr), torch.from_numpy(j), torch.from_numpy(shift)

    def _update(
        self, positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Collect anew if that is needed; positions and cell as arrays."""
        points, box, periodic = _as_arrays(positions, cell, pbc)
        frame = box.tobytes(), periodic.tobytes()
        if frame != self._frame or not self._covers(points):
            _check(points, box, periodic, self.cutoff)
            self._reference = None  # until there are new ones
            self._collect(points, box, periodic)
            self._reference, self._frame = points.copy(), frame
            self.num_collections += 1
        return points, box

    def _collect(self, points: NDArray[np.float64], box: NDArray[np.float64], periodic: NDArray[np.bool_]) -> None:
        self._pairs = _NONE  # frees the others first
        self._pairs = _candidates(points, box, periodic, self.cutoff + self.skin)

    def _on_host(self) -> Pairs:
        return self._pairs

    def _covers(self, positions: NDArray[np.float64]) -> bool:
        """Whether the collected pairs include every pair within the cutoff; not where a position is no number."""
        if self._reference is None or self._reference.shape != positions.shape:
            return False
        moved = positions - self._reference
        return bool(4.0 * np.einsum("ax,ax->a", moved, moved).max(initial=0.0) < self.skin**2)


def _as_arrays(
    positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """[N, 3], [3, 3], [3]"""
    points = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    box = np.zeros((3, 3)) if cell is None else np.ascontiguousarray(cell, dtype=np.float64).reshape(3, 3)
    periodic = np.asarray(pbc, dtype=bool)
    return points, box, periodic if periodic.shape == (3,) else np.array(np.broadcast_to(periodic, 3))


def _checked(
    positions: ArrayLike, cell: ArrayLike | None, pbc: ArrayLike, cutoff: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """The arguments as arrays, if a neighbour list of them makes sense."""
    points, box, periodic = _as_arrays(positions, cell, pbc)
    _check(points, box, periodic, cutoff)
    return points, box, periodic


def _check(points: NDArray[np.float64], box: NDArray[np.float64], periodic: NDArray[np.bool_], cutoff: float) -> None:
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"the cutoff is {cutoff}; give a positive length in Å")
    if not np.isfinite(points).all():
        atom = int(np.argmin(np.isfinite(points).all(axis=1)))
        raise InputError(f"the position of atom {atom} is {points[atom]}; every coordinate must be a finite number")
    if not np.isfinite(box).all():
        raise InputError(f"the cell {box.tolist()} has an entry that is not a finite number; give lattice vectors in Å")
    vectors = box[periodic]
    if len(vectors) and np.linalg.matrix_rank(vectors) < len(vectors):
        raise InputError(
            f"periodic along {'/'.join(np.array(list('abc'))[periodic])}, but the cell {box.tolist()} has no "
            "independent lattice vectors there; set the cell or switch pbc off"
        )
    if periodic.all():
        neighbors = 4 / 3 * np.pi * cutoff**3 * len(points) / abs(np.linalg.det(box))
        if neighbors > _MAX_NEIGHBORS:
            raise InputError(
                f"a cutoff of {cutoff} Å would give each atom about {neighbors:.0f} neighbours; lower it (3 to 7 Å is "
                "usual) or check that cell and cutoff are in Å"
            )


def _candidates(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], cutoff: float
) -> Pairs:
    """Pairs that include all within ``cutoff``, sorted by (i, j, shift)."""
    vesin = require("vesin", "md")
    search = vesin.NeighborList(cutoff=cutoff * HAIR, full_list=True, sorted=False)
    found = search.compute(points=positions, box=completed(cell, pbc), periodic=pbc, quantities="ijS")
    i, j, shift = (np.asarray(values) for values in found)
    # One number per pair that orders like (i, j, shift): it sorts several times faster than five columns, and in place.
    low = shift.min(axis=0, initial=0).astype(np.int64)
    extent = shift.max(axis=0, initial=0).astype(np.int64) - low + 1
    count = max(len(positions), 1)
    check_numbers(count, extent)
    order = i.astype(np.int64)
    order *= count
    order += j.astype(np.int64)
    for axis in range(3):
        order *= extent[axis]
        order += shift[:, axis] - low[axis]
    del found, i, j, shift
    order.sort()
    shift = np.empty((len(order), 3), np.int32)
    for axis in (2, 1, 0):
        shift[:, axis] = order % extent[axis] + low[axis]
        order //= extent[axis]
    j = (order % count).astype(np.int32)
    order //= count
    return _starts(order, len(positions)), j, shift


def check_numbers(atoms: int, extent: ArrayLike) -> None:
    """Whether one number can tell pairs of so many atoms apart whose shifts span ``extent`` [3].

    Raises:
        InputError: it would not fit in 63 bits.
    """
    if float(atoms) ** 2 * float(np.asarray(extent, np.float64).prod()) >= 2.0**63:
        raise InputError("atoms lie too many cells apart for a neighbour list; wrap them into the cell")


def _starts(i: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """ptr [count + 1] of pairs sorted by i."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(i, minlength=count))])


def completed(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The cell with the vectors of non-periodic axes, which mean nothing, replaced by ones orthogonal to the rest."""
    if pbc.all():
        return cell
    _, _, basis = np.linalg.svd(cell[pbc]) if pbc.any() else (None, None, np.eye(3))
    completed = cell.copy()
    completed[~pbc] = basis[pbc.sum() :]
    return completed


def _centres(ptr: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))


def _within(pairs: Pairs, positions: NDArray[np.float64], cell: NDArray[np.float64], cutoff: float) -> Pairs:
    ptr, j, shift = pairs
    i = _centres(ptr)
    vectors = positions[j] - positions[i] + shift @ cell
    keep = np.einsum("ex,ex->e", vectors, vectors) < cutoff**2
    return _starts(i[keep], len(positions)), j[keep], shift[keep]


def _as_tensors(pairs: Pairs) -> tuple[Tensor, Tensor]:
    ptr, j, shift = pairs
    edge_index = np.stack((_centres(ptr), j.astype(np.int64)))
    return torch.from_numpy(edge_index), torch.from_numpy(shift.astype(np.float64))
