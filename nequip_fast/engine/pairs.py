"""The pairs of a neighbour list on the device, and those of them within the cutoff."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nequip_fast.data.neighbors import MIN_DISTANCE
from nequip_fast.ops import Graph


class Pairs(NamedTuple):
    """Pairs by their centre, and the order in which their neighbours visit them; there may be room for more.

    Indices are int64; those of pairs that the pointers do not reach are 0.
    """

    centre: Tensor  # [P]
    neighbour: Tensor  # [P]
    shift: Tensor  # [P, 3], lattice vectors, float64
    centre_ptr: Tensor  # [N + 1]
    neighbour_ptr: Tensor  # [N + 1]
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
        centre = place.repeat_interleave(ptr.diff(), output_size=count)
        order = torch.argsort(centre, stable=True)
        centre, neighbour, shift = centre[order], place[neighbour.long()][order], shift[order].double()
        by_neighbour = torch.argsort(neighbour, stable=True)
        bounds = torch.arange(atoms + 1, device=device)
        centre_ptr = torch.searchsorted(centre, bounds)
        neighbour_ptr = torch.searchsorted(neighbour[by_neighbour], bounds)
        centre, neighbour, shift, by_neighbour = (
            _padded(tensor, room) for tensor in (centre, neighbour, shift, by_neighbour)
        )
        return cls(centre, neighbour, shift, centre_ptr, neighbour_ptr, by_neighbour)


class Edges(NamedTuple):
    """The pairs within the cutoff, first in each tensor; what may follow is any pair and no edge of the graph's walks.

    ``wrong`` [2]: whether two atoms are at one place, and whether a distance is not finite.
    """

    graph: Graph
    vectors: Tensor  # [P, 3], Å
    cutoff: Tensor  # [P], Å
    wrong: Tensor


def within_cutoff(
    pairs: Pairs, positions: Tensor, cells: Tensor, structure: Tensor, types: Tensor, cutoff: Tensor, cut: bool
) -> Edges:
    """The edges of a structure.

    Args:
        pairs: at least all those within the cutoff.
        positions: [N, 3]; cells: [B, 3, 3], both float64.
        structure, types: of the atoms [N].
        cutoff: [types, types], of centre and neighbour, Å.
        cut: edges only, as many as there are; else nothing is read back.
    """
    centre, neighbour = pairs.centre, pairs.neighbour
    if len(cells) == 1:
        across = pairs.shift @ cells[0]
    else:
        across = (pairs.shift.unsqueeze(1) @ cells[structure[centre]]).squeeze(1)
    vectors = positions[neighbour] - positions[centre] + across
    limit, square = cutoff[types[centre], types[neighbour]], vectors.square().sum(1)
    numbers = torch.arange(centre.shape[0], device=centre.device)
    real = numbers < pairs.centre_ptr[-1]
    keep = real & (square < limit * limit)
    before = _sums_before(keep)
    end = int(before[-1]) if cut else centre.shape[0]
    kept = _first(numbers, keep, before)[:end]
    by_neighbour = keep[pairs.neighbour_order] & real
    before_by_neighbour = _sums_before(by_neighbour)
    graph = Graph(
        centre[kept],
        neighbour[kept],
        before[pairs.centre_ptr],
        numbers[:end],
        before_by_neighbour[pairs.neighbour_ptr],
        _first(before[pairs.neighbour_order], by_neighbour, before_by_neighbour)[:end],
    )
    same_place = (keep & (square < MIN_DISTANCE**2)).any()
    not_finite = (real & ~torch.isfinite(square)).any()
    return Edges(graph, vectors[kept], limit[kept], torch.stack([same_place, not_finite]))


def _sums_before(keep: Tensor) -> Tensor:
    """[P + 1]: how many are kept of those before each."""
    return torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])


def _first(values: Tensor, keep: Tensor, before: Tensor) -> Tensor:
    """[P]: the values that are kept, then zeros."""
    count = values.shape[0]
    places = torch.where(keep, before[:-1], count)
    return values.new_zeros(count + 1).scatter_(0, places, values)[:-1]


def _padded(tensor: Tensor, room: int) -> Tensor:
    return torch.cat([tensor, tensor.new_zeros(room - tensor.shape[0], *tensor.shape[1:])])
