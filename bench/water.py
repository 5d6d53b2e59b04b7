"""A box of rigid water molecules at 1 g/cm³ on a lattice, randomly turned: the standard system of the benchmarks."""

from __future__ import annotations

from functools import cache

import numpy as np
from torch import Tensor

_VOLUME = 29.9  # Å³ a molecule at 1 g/cm³


@cache
def water_box(molecules: int, seed: int = 0):
    """``molecules`` H2O in a periodic cube, as ase.Atoms."""
    from ase import Atoms
    from scipy.spatial.transform import Rotation

    generator = np.random.default_rng(seed)
    edge = (molecules * _VOLUME) ** (1 / 3)
    side = int(np.ceil(molecules ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:molecules]
    molecule = np.array([[0.0, 0.0, 0.0], [0.757, 0.586, 0.0], [-0.757, 0.586, 0.0]])
    turns = Rotation.random(molecules, random_state=generator).as_matrix()
    positions = (sites[:, None] + 0.5) * edge / side + np.einsum("mij,aj->mai", turns, molecule)
    return Atoms("OHH" * molecules, positions.reshape(-1, 3), cell=[edge] * 3, pbc=True)


def water_graph(molecules: int, r_max: float) -> dict[str, Tensor]:
    """The same as a graph for models with type names H, O."""
    from nequip_fast.data import collate, graph_from_atoms

    return collate([graph_from_atoms(water_box(molecules), ["H", "O"], r_max)])
