"""One structure as a graph dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nequip_fast.data import keys
from nequip_fast.data.neighbors import MIN_DISTANCE, VerletList, neighbor_list
from nequip_fast.errors import InputError, require

if TYPE_CHECKING:
    from ase import Atoms


def graph_from_atoms(
    atoms: Atoms,
    type_names: Sequence[str],
    r_max: float,
    *,
    per_edge_type_cutoff: Mapping[str, float | Mapping[str, float]] | None = None,
    verlet: VerletList | None = None,
) -> dict[str, Tensor]:
    """Positions, types and neighbour list of ``atoms``, and its reference values where it carries them.

    Args:
        atoms: one structure; a single-point calculator's energy (eV), forces (eV/Å) and stress (eV/Å³) become labels.
            Any other calculator is ignored, and so are values that belong to other positions.
        type_names: chemical symbols in the order of the model's types.
        r_max: cutoff in Å.
        per_edge_type_cutoff: shorter cutoffs, ``{"H": 2.0, "C": {"H": 4.0}}``: by element of the centre, then of the
            neighbour; pairs that are not given have ``r_max``. The pairs (H, C) and (C, H) may differ.
        verlet: a list to reuse between the steps of molecular dynamics, made with cutoff ``r_max``.

    Returns:
        Graph dictionary (:mod:`nequip_fast.data.keys`) with B = 1. The cell is zero unless some axis is periodic, and
        only a periodic structure has a stress.

    Raises:
        InputError: an element the model does not know, two atoms at the same place, and what ``neighbor_list`` raises.
    """
    types = atom_types(atoms, type_names)
    periodic = bool(atoms.pbc.any())
    cell = np.array(atoms.cell) if periodic else np.zeros((3, 3))
    if verlet is None:
        edge_index, shifts = neighbor_list(atoms.positions, cell, atoms.pbc, r_max)
    elif verlet.cutoff == r_max:
        edge_index, shifts = verlet(atoms.positions, cell, atoms.pbc)
    else:
        raise InputError(f"the Verlet list has cutoff {verlet.cutoff} Å, the graph {r_max} Å; make both the same")
    positions = torch.tensor(atoms.positions, dtype=torch.float64)
    lengths = torch.linalg.vector_norm(
        positions[edge_index[1]] - positions[edge_index[0]] + shifts @ torch.from_numpy(cell), dim=1
    )
    _check_distances(lengths, edge_index)
    if per_edge_type_cutoff is not None:
        from nequip_fast.nn.radial import cutoff_table  # here, so that data alone does not load the model's parts

        cutoffs = cutoff_table(per_edge_type_cutoff, type_names, r_max)
        keep = lengths <= cutoffs[types[edge_index[0]], types[edge_index[1]]]
        edge_index, shifts = edge_index[:, keep], shifts[keep]
    return {
        keys.POSITIONS: positions,
        keys.ATOM_TYPES: types,
        keys.ATOMIC_NUMBERS: torch.tensor(atoms.numbers, dtype=torch.int64),
        keys.EDGE_INDEX: edge_index,
        keys.EDGE_CELL_SHIFT: shifts,
        keys.CELL: torch.from_numpy(cell).unsqueeze(0),
        keys.PBC: torch.tensor(atoms.pbc, dtype=torch.bool).unsqueeze(0),
        keys.NUM_ATOMS: torch.tensor([len(atoms)], dtype=torch.int64),
        keys.BATCH: torch.zeros(len(atoms), dtype=torch.int64),
        **_labels(atoms, periodic),
    }


def atom_types(atoms: Atoms, type_names: Sequence[str]) -> Tensor:
    """Index of each atom's element in ``type_names`` [N]."""
    index = {name: i for i, name in enumerate(type_names)}
    unknown = sorted(set(atoms.symbols) - set(index))
    if unknown:
        raise InputError(
            f"the structure holds {', '.join(unknown)}, but the model knows only {', '.join(type_names)}; "
            "use a model trained on every element of the structure"
        )
    return torch.tensor([index[symbol] for symbol in atoms.symbols], dtype=torch.int64)


def _check_distances(lengths: Tensor, edge_index: Tensor) -> None:
    if lengths.numel() and float(lengths.min()) < MIN_DISTANCE:
        i, j = edge_index[:, int(lengths.argmin())].tolist()
        raise InputError(f"atoms {i} and {j} are at the same place (closer than {MIN_DISTANCE} Å); remove one of them")


def _labels(atoms: Atoms, periodic: bool) -> dict[str, Tensor]:
    """Reference values of a single-point calculator, shapes [1, 1], [N, 3], [1, 3, 3]."""
    single_point = require("ase.calculators.singlepoint", "md").SinglePointCalculator
    if not isinstance(atoms.calc, single_point):
        return {}

    def value(name: str) -> np.ndarray | None:
        return atoms.calc.get_property(name, atoms, allow_calculation=False)

    labels = {}
    if (energy := value("energy")) is not None:
        labels[keys.TOTAL_ENERGY] = torch.tensor([[float(energy)]], dtype=torch.float64)
    if (forces := value("forces")) is not None:
        labels[keys.FORCES] = torch.tensor(np.asarray(forces), dtype=torch.float64)
    if periodic and (stress := value("stress")) is not None:
        matrix = require("ase.stress", "md").voigt_6_to_full_3x3_stress(stress)
        labels[keys.STRESS] = torch.tensor(matrix, dtype=torch.float64).unsqueeze(0)
    return labels
