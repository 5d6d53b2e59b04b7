"""The pairs of a neighbour list on the device, and those of them within the cutoff."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nequip_fast.data.neighbors import MIN_DISTANCE
from nequip_fast.ops import Graph

_MANY = 1 << 22  # pairs: of more some are compared after the others


class Pairs(NamedTuple):
    """Pairs by their centre, and the order in which their neighbours visit them; there may be room for more.

    What there is for each pair is int32, to be kept small, and 0 where the pointers do not reach.
    """

    centre: Tensor  # [P]
    neighbour: Tensor  # [P]
    shift: Tensor  # [P, 3], lattice vectors
    centre_ptr: Tensor  # [N + 1], int64
    neighbour_ptr: Tensor  # [N + 1], int64
    neighbour_order: Tensor  # [P]

    @classmethod
    def of_list(cls, ptr: Tensor, neighbour: Tensor, shift: Tensor, place: Tensor, room: int) -> Pairs:
        """Of a neighbour list.

        Args:
            ptr, neighbour, shift: pairs of atom i are ``ptr[i]`` … ``ptr[i + 1] − 1``.
            place: new number of each atom [N].
            room: at least as many as there are pairs.
        """
        atoms, count, device = place.shape[0], neighbour.shape[0], place.device
        place = place.int()
        centre = place.repeat_interleave(ptr.diff(), output_size=count)
        order = torch.argsort(centre, stable=True)
        centre, neighbour, shift = centre[order], place[neighbour][order], shift[order].int()
        by_neighbour = torch.argsort(neighbour, stable=True)
        bounds = torch.arange(atoms + 1, dtype=torch.int32, device=device)
        centre_ptr = torch.searchsorted(centre, bounds)
        neighbour_ptr = torch.searchsorted(neighbour[by_neighbour], bounds)
        centre, neighbour, shift, by_neighbour = (
            _padded(tensor, room) for tensor in (centre, neighbour, shift, by_neighbour.int())
        )
        return cls(centre, neighbour, shift, centre_ptr, neighbour_ptr, by_neighbour)


class Edges(NamedTuple):
    """The pairs within the cutoff, first in each tensor; what may follow is any pair and not reached by the graph."""

    graph: Graph
    vectors: Tensor  # [E, 3], Å
    cutoff: Tensor  # [E], Å
    same_place: Tensor  # whether two atoms are at one
    not_finite: Tensor  # whether a distance is not
    too_many: Tensor  # whether there are more than room for them: then only some of them are here


class Geometry(NamedTuple):
    """Where atoms are, and how far they see."""

    positions: Tensor  # [N, 3], Å, float64
    cells: Tensor  # [B, 3, 3], Å, float64
    structure: Tensor  # of each atom [N]
    types: Tensor  # of each atom [N]
    cutoff: Tensor  # [types, types], of centre and neighbour, Å

    def vectors(self, centre: Tensor, neighbour: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Those of pairs [P, 3], and the cutoff of each [P]."""
        shift, cells = shift.double(), self.cells
        one = len(cells) == 1
        across = shift @ cells[0] if one else (shift.unsqueeze(1) @ cells[self.structure[centre]]).squeeze(1)
        vectors = self.positions[neighbour] - self.positions[centre] + across
        return vectors, self.cutoff[self.types[centre], self.types[neighbour]]


class Near(NamedTuple):
    """Which pairs are within the cutoff."""

    real: Tensor  # [P], whether it is a pair
    within: Tensor  # [P], whether it is one within the cutoff
    same_place: Tensor
    not_finite: Tensor
    vectors: tuple[Tensor, Tensor] | None  # of all pairs, as by Geometry; of many they are not kept


def near(pairs: Pairs, geometry: Geometry) -> Near:
    """Compare the distances of pairs, at least all those within the cutoff, with it."""
    count, device = pairs.centre.shape[0], pairs.centre.device
    real = torch.arange(count, device=device) < pairs.centre_ptr[-1]
    if count <= _MANY:
        vectors = geometry.vectors(pairs.centre, pairs.neighbour, pairs.shift)
        return Near(real, *_compared(real, *vectors), vectors)
    within, wrong = torch.empty_like(real), []
    for begin in range(0, count, _MANY):
        some = slice(begin, begin + _MANY)
        vectors = geometry.vectors(pairs.centre[some], pairs.neighbour[some], pairs.shift[some])
        within[some], *of_some = _compared(real[some], *vectors)
        wrong.append(torch.stack(of_some))
    same_place, not_finite = torch.stack(wrong).any(0)
    return Near(real, within, same_place, not_finite, None)


def _compared(real: Tensor, vectors: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(within, same place, not finite)"""
    square = vectors.square().sum(1)
    within = real & (square < limit * limit)
    return within, (within & (square < MIN_DISTANCE**2)).any(), (real & ~torch.isfinite(square)).any()


def edges_within(pairs: Pairs, geometry: Geometry, found: Near, room: int | None) -> Edges:
    """The edges of a structure.

    Args:
        pairs, geometry: those that were compared.
        found: how.
        room: for so many; None: as many as there are, which is read back.
    """
    before = _sums_before(found.within)
    count = before[-1]
    room = int(count) if room is None else room
    kept = _first(torch.arange(len(found.within), device=count.device), found.within, before, room)
    by_neighbour = found.within[pairs.neighbour_order] & found.real
    before_by_neighbour = _sums_before(by_neighbour)
    order = _first(before[pairs.neighbour_order], by_neighbour, before_by_neighbour, room)
    centre, neighbour = pairs.centre[kept].long(), pairs.neighbour[kept].long()
    graph = Graph(
        centre,
        neighbour,
        before[pairs.centre_ptr].clamp(max=room),
        torch.arange(room, device=count.device),
        before_by_neighbour[pairs.neighbour_ptr].clamp(max=room),
        order.clamp(max=room - 1),
    )
    if found.vectors is None:
        vectors, limit = geometry.vectors(centre, neighbour, pairs.shift[kept])
    else:
        vectors, limit = (tensor[kept] for tensor in found.vectors)
    return Edges(graph, vectors, limit, found.same_place, found.not_finite, count > room)


def _sums_before(keep: Tensor) -> Tensor:
    """[P + 1]: how many are kept of those before each."""
    return torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])


def _first(values: Tensor, keep: Tensor, before: Tensor, room: int) -> Tensor:
    """[room]: the first values that are kept, then zeros."""
    places = torch.where(keep, before[:-1], room).clamp(max=room)
    return values.new_zeros(room + 1).scatter_(0, places, values)[:-1]


def _padded(tensor: Tensor, room: int) -> Tensor:
    return torch.cat([tensor, tensor.new_zeros(room - tensor.shape[0], *tensor.shape[1:])])
