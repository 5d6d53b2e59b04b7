"""What a model is told about its data: reference energies of the elements, force scale, number of neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nequip_fast.data import keys
from nequip_fast.data.graph import graph_from_atoms
from nequip_fast.errors import InputError, nearest

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class DatasetStatistics:
    """Statistics of a training set; energies in eV, forces in eV/Å.

    Neighbours, force RMS and mean energy per atom are those of nequip's ``CommonDataStatisticsManager``.
    """

    num_structures: int
    num_atoms: int
    avg_num_neighbors: float  # edges per atom
    per_type_num_neighbors: dict[str, float]  # of atoms of this element; the overall value for an element not present
    forces_rms: float | None  # over all force components; None without forces
    per_type_forces_rms: dict[str, float] | None  # the overall value for an element not present
    per_atom_energy_mean: float  # mean over structures of energy / atoms
    per_atom_energy_std: float  # its standard deviation (n - 1); 0 for a single structure
    per_type_energy_shifts: dict[str, float]  # energy of each element, 0 for one that is not present
    shifts_are_unique: bool  # whether the data determine the shifts of all elements
    composition_rank: int  # of the matrix of element counts


def statistics(
    structures: Sequence[Atoms] | Sequence[dict[str, Tensor]],
    type_names: Sequence[str],
    r_max: float,
    *,
    per_edge_type_cutoff: Mapping[str, float | Mapping[str, float]] | None = None,
    isolated_atom_energies: Mapping[str, float] | None = None,
) -> DatasetStatistics:
    """Statistics of labelled structures.

    The energy shifts of the elements minimise the squared error of Σ_element count · shift against the energies. Where
    the compositions do not determine them (ethanol alone: nine atoms always in the ratio 2:6:1), ``shifts_are_unique``
    is false and the shifts are the shortest vector that fits equally well; sums over the compositions seen are right,
    differences between elements mean nothing. Energies of isolated atoms, if given, are used instead of a fit.

    Args:
        structures: ASE structures with labels, or graphs made of them with the same cutoffs.
        type_names: chemical symbols of the model's types.
        r_max: cutoff in Å.
        per_edge_type_cutoff: as for :func:`graph_from_atoms`.
        isolated_atom_energies: energy of each element's isolated atom in eV.

    Raises:
        InputError: no structures, one without energy, isolated-atom energies that do not match ``type_names``, or a
            cutoff so short that no atom has a neighbour.
    """
    if not len(structures):
        raise InputError("statistics need at least one structure; got none")
    graphs = [
        item
        if isinstance(item, dict)
        else graph_from_atoms(item, type_names, r_max, per_edge_type_cutoff=per_edge_type_cutoff)
        for item in structures
    ]
    for number, graph in enumerate(graphs):
        if keys.TOTAL_ENERGY not in graph:
            raise InputError(f"structure {number} has no energy, which the statistics of the data need; remove it")
    num_types = len(type_names)
    types = torch.cat([graph[keys.ATOM_TYPES] for graph in graphs]).numpy()
    neighbors = torch.cat([_num_neighbors(graph) for graph in graphs]).numpy()
    if not neighbors.any() and len(types) > len(graphs):
        raise InputError(
            f"no atom has a neighbour within r_max = {r_max} Å; raise r_max (and check that lengths are in Å)"
        )
    energies = np.array([float(graph[keys.TOTAL_ENERGY]) for graph in graphs])
    counts = np.stack([np.bincount(graph[keys.ATOM_TYPES].numpy(), minlength=num_types) for graph in graphs])
    per_atom = energies / counts.sum(axis=1)
    shifts, rank = _energy_shifts(counts, energies, type_names, isolated_atom_energies)
    forces_rms, per_type_forces_rms = _force_rms(graphs, types, type_names)
    return DatasetStatistics(
        num_structures=len(graphs),
        num_atoms=len(types),
        avg_num_neighbors=float(neighbors.mean()),
        per_type_num_neighbors=_per_type(neighbors, types, type_names),
        forces_rms=forces_rms,
        per_type_forces_rms=per_type_forces_rms,
        per_atom_energy_mean=float(per_atom.mean()),
        per_atom_energy_std=float(per_atom.std(ddof=1)) if len(per_atom) > 1 else 0.0,
        per_type_energy_shifts=shifts,
        shifts_are_unique=isolated_atom_energies is not None or rank == num_types,
        composition_rank=rank,
    )


def _num_neighbors(graph: dict[str, Tensor]) -> Tensor:
    """Edges of which each atom is the centre [N], float64."""
    return torch.bincount(graph[keys.EDGE_INDEX][0], minlength=len(graph[keys.POSITIONS])).double()


def _energy_shifts(
    counts: NDArray[np.int64],
    energies: NDArray[np.float64],
    type_names: Sequence[str],
    isolated_atom_energies: Mapping[str, float] | None,
) -> tuple[dict[str, float], int]:
    """Energy of each element, and the rank of ``counts`` [structures, elements]."""
    # lstsq returns the solution of smallest norm when the rank is deficient
    fitted, _, rank, _ = np.linalg.lstsq(counts.astype(np.float64), energies, rcond=None)
    if isolated_atom_energies is None:
        return dict(zip(type_names, fitted.tolist(), strict=True)), int(rank)
    for symbol in isolated_atom_energies:
        if symbol not in type_names:
            raise InputError(f"isolated_atom_energies: {symbol!r} is not in type_names{nearest(symbol, type_names)}")
    for symbol in type_names:
        if symbol not in isolated_atom_energies:
            raise InputError(f"isolated_atom_energies: {symbol} is missing; give the energy of every element in eV")
    return {symbol: float(isolated_atom_energies[symbol]) for symbol in type_names}, int(rank)


def _force_rms(
    graphs: Sequence[dict[str, Tensor]], types: NDArray[np.int64], type_names: Sequence[str]
) -> tuple[float | None, dict[str, float] | None]:
    """RMS over force components, of all atoms and of each element; structures without forces are left out."""
    squares = torch.cat(
        [
            graph[keys.FORCES].square().mean(dim=1)
            if keys.FORCES in graph
            else torch.full((len(graph[keys.POSITIONS]),), torch.nan, dtype=torch.float64)
            for graph in graphs
        ]
    ).numpy()
    known = ~np.isnan(squares)
    if not known.any():
        return None, None
    per_type = _per_type(squares[known], types[known], type_names)
    return float(np.sqrt(squares[known].mean())), {name: float(np.sqrt(value)) for name, value in per_type.items()}


def _per_type(values: NDArray[np.float64], types: NDArray[np.int64], type_names: Sequence[str]) -> dict[str, float]:
    """Mean of ``values`` [N] over the atoms of each type; over all atoms for a type without any."""
    return {
        name: float(values[types == index].mean() if (types == index).any() else values.mean())
        for index, name in enumerate(type_names)
    }
