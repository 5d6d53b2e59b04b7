"""A compiled model beside the model it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nequip_fast.data import graph_from_atoms, keys, neighbor_list
from nequip_fast.engine.source import Source

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Deviation:
    """Largest differences from the source model.

    Attributes:
        energy: eV per atom.
        force: eV/Å.
        stress: eV/Å³.
        largest_force: of the source model, eV/Å.
    """

    energy: float
    force: float
    stress: float
    largest_force: float


def deviation(expected: Sequence[Mapping[str, Tensor]], found: Sequence[Mapping[str, Tensor]]) -> Deviation:
    """The largest differences between two evaluations of the same structures; NaN where either is not finite.

    Stress counts where ``expected`` has one, for structures whose cell has a volume.
    """
    parts = []
    for one, other in zip(expected, found, strict=True):
        stress = one[keys.STRESS].isfinite() if keys.STRESS in one else torch.zeros(0, dtype=torch.bool)
        parts.append(
            [
                _largest(other[keys.TOTAL_ENERGY] - one[keys.TOTAL_ENERGY]) / max(len(one[keys.FORCES]), 1),
                _largest(other[keys.FORCES] - one[keys.FORCES]),
                _largest((other[keys.STRESS] - one[keys.STRESS])[stress]) if stress.numel() else 0.0,
                _largest(one[keys.FORCES]),
            ]
        )
    return Deviation(*np.max(parts, axis=0, initial=0.0).tolist())  # of numpy, which does not pass over NaN


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def graphs_of(source: Source, structures: Iterable[Atoms]) -> list[dict[str, Tensor]]:
    """The model's input for structures of the user's."""
    return [
        graph_from_atoms(atoms, source.type_names, source.r_max, per_edge_type_cutoff=source.cutoffs)
        for atoms in structures
    ]


def sample_graphs(num_types: int, r_max: float, count: int = 3) -> list[dict[str, Tensor]]:
    """Periodic boxes, ``count`` or as many as hold every type, of about forty neighbours an atom.

    No two atoms are closer than a quarter of r_max: where forces are huge, rounding alone is.
    """
    generator = np.random.default_rng(0)
    spacing = r_max / 2.1
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) * spacing
    graphs = []
    for k in range(max(count, -(-num_types // len(grid)))):
        positions = grid + generator.uniform(-0.2, 0.2, grid.shape) * spacing
        cell = np.eye(3) * 3 * spacing + generator.uniform(-0.1, 0.1, (3, 3)) * spacing
        edge_index, shifts = neighbor_list(positions, cell, True, r_max)
        graphs.append(
            {
                keys.POSITIONS: torch.from_numpy(positions),
                keys.ATOM_TYPES: torch.from_numpy(
                    generator.permutation(np.arange(len(grid)) + k * len(grid)) % num_types
                ),
                keys.CELL: torch.from_numpy(cell).unsqueeze(0),
                keys.EDGE_INDEX: edge_index,
                keys.EDGE_CELL_SHIFT: shifts,
            }
        )
    return graphs
