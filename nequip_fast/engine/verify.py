"""A compiled model beside the model it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nequip_fast.data import graph_from_atoms, keys
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


def deviation(potential: Potential, model: GraphModel, structures: Sequence[Atoms]) -> Deviation:
    """The largest differences over ``structures``, each evaluated by both."""
    energy = force = stress = largest = 0.0
    with torch.no_grad():
        for atoms in structures:
            graph = graph_from_atoms(
                atoms,
                model.type_names,
                model.r_max,
                per_edge_type_cutoff=model.config.get("per_edge_type_cutoff"),
            )
            expected, found = model.eval()(graph), potential.evaluate(graph)

            def largest_difference(name: str) -> float:
                return float((found[name] - expected[name]).abs().nan_to_num().max())  # noqa: B023

            energy = max(energy, largest_difference(keys.TOTAL_ENERGY) / len(atoms))
            force = max(force, largest_difference(keys.FORCES))
            stress = max(stress, largest_difference(keys.STRESS))
            largest = max(largest, float(expected[keys.FORCES].abs().max()))
    return Deviation(energy, force, stress, largest)


def sample_structures(type_names: Sequence[str], r_max: float, count: int = 3) -> list[Atoms]:
    """Periodic boxes of all types at random, about forty neighbours an atom, none closer than a fifth of r_max."""
    from ase import Atoms

    generator = np.random.default_rng(0)
    spacing = r_max / 2.1
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) * spacing
    return [
        Atoms(
            [type_names[k] for k in generator.permutation(np.arange(len(grid)) % len(type_names))],
            positions=grid + generator.uniform(-0.28, 0.28, grid.shape) * spacing,
            cell=np.eye(3) * 3 * spacing + generator.uniform(-0.1, 0.1, (3, 3)) * spacing,
            pbc=True,
        )
        for _ in range(count)
    ]
