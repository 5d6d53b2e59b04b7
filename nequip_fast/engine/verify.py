"""A compiled model beside the model it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nequip_fast.data import graph_from_atoms, keys, neighbor_list
from nequip_fast.engine.potential import Potential
from nequip_fast.model import GraphModel

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


def deviation(potential: Potential, model: GraphModel, graphs: Iterable[Mapping[str, Tensor]]) -> Deviation:
    """The largest differences over structures, each evaluated by both."""
    energy = force = stress = largest = 0.0
    model.eval()
    for graph in graphs:
        with torch.no_grad():
            expected, found = model(graph), potential.evaluate(graph)
        difference = {
            name: float((found[name] - expected[name]).abs().nan_to_num().max())
            for name in (keys.TOTAL_ENERGY, keys.FORCES, keys.STRESS)
        }
        energy = max(energy, difference[keys.TOTAL_ENERGY] / len(graph[keys.POSITIONS]))
        force = max(force, difference[keys.FORCES])
        stress = max(stress, difference[keys.STRESS])
        largest = max(largest, float(expected[keys.FORCES].abs().max()))
    return Deviation(energy, force, stress, largest)


def graphs_of(model: GraphModel, structures: Iterable[Atoms]) -> list[dict[str, Tensor]]:
    """The model's input for structures of the user's."""
    cutoffs = model.config.get("per_edge_type_cutoff")
    return [
        graph_from_atoms(atoms, model.type_names, model.r_max, per_edge_type_cutoff=cutoffs) for atoms in structures
    ]


def sample_graphs(num_types: int, r_max: float, count: int = 3) -> list[dict[str, Tensor]]:
    """Periodic boxes of all types at random, about forty neighbours an atom, none closer than a fifth of r_max."""
    generator = np.random.default_rng(0)
    spacing = r_max / 2.1
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) * spacing
    graphs = []
    for _ in range(count):
        positions = grid + generator.uniform(-0.28, 0.28, grid.shape) * spacing
        cell = np.eye(3) * 3 * spacing + generator.uniform(-0.1, 0.1, (3, 3)) * spacing
        edge_index, shifts = neighbor_list(positions, cell, True, r_max)
        graphs.append(
            {
                keys.POSITIONS: torch.from_numpy(positions),
                keys.ATOM_TYPES: torch.from_numpy(generator.permutation(np.arange(len(grid)) % num_types)),
                keys.CELL: torch.from_numpy(cell).unsqueeze(0),
                keys.EDGE_INDEX: edge_index,
                keys.EDGE_CELL_SHIFT: shifts,
            }
        )
    return graphs
