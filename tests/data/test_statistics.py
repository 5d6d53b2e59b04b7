"""Statistics of a data set: the same numbers as nequip's, and energies of the elements."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from nequip_fast.data import graph_from_atoms, statistics
from nequip_fast.errors import InputError

TYPES = ["C", "H", "O"]
ENERGIES = {"C": -1030.0, "H": -13.6, "O": -2042.0}


def labelled(name, seed=0, energy=None, forces=True):
    rng = np.random.default_rng(seed)
    atoms = molecule(name)
    atoms.rattle(0.05, seed=seed)
    exact = sum(ENERGIES[symbol] for symbol in atoms.symbols)
    results = {"energy": exact if energy is None else energy}
    if forces:
        results["forces"] = rng.normal(size=(len(atoms), 3)) * atoms.numbers[:, None]
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


MIXTURE = [labelled(name, seed) for seed, name in enumerate(["CH3CH2OH", "H2O", "CH4", "CO2", "H2"])]


def test_same_as_nequip(monkeypatch):
    monkeypatch.setattr("nequip.utils.logger.rank_zero_only.rank", 0, raising=False)  # Lightning sets it elsewhere
    from nequip.data import AtomicDataDict, CommonDataStatisticsManager, compute_neighborlist_, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper

    torch.set_default_dtype(torch.float64)  # nequip keeps energies in it
    mapper = ChemicalSpeciesToAtomTypeMapper(TYPES)
    graphs = [compute_neighborlist_(mapper(from_ase(atoms)), 2.0) for atoms in MIXTURE]
    batches = [AtomicDataDict.batched_from_list([graph]) for graph in graphs]
    theirs = CommonDataStatisticsManager(type_names=TYPES).get_statistics(batches)
    ours = statistics(MIXTURE, TYPES, 2.0)
    assert ours.avg_num_neighbors == pytest.approx(theirs["num_neighbors_mean"], rel=1e-12)
    assert ours.per_atom_energy_mean == pytest.approx(theirs["per_atom_energy_mean"], rel=1e-12)
    assert ours.forces_rms == pytest.approx(theirs["forces_rms"], rel=1e-12)
    assert ours.per_type_forces_rms == pytest.approx(theirs["per_type_forces_rms"], rel=1e-12)
    assert ours.per_type_num_neighbors == pytest.approx(theirs["per_type_num_neighbors_mean"], rel=1e-12)


def test_isolated_atoms_count_in_the_mean():
    far = Atoms("HHO", [[0, 0, 0], [0, 0, 0.7], [9, 9, 9]])
    far.calc = SinglePointCalculator(far, energy=0.0)
    stats = statistics([far], TYPES, 2.0)
    assert stats.avg_num_neighbors == pytest.approx(2 / 3)
    assert stats.per_type_num_neighbors == pytest.approx({"C": 2 / 3, "H": 1.0, "O": 0.0})


def test_shifts_are_recovered_where_compositions_determine_them():
    stats = statistics(MIXTURE, TYPES, 4.0)
    assert stats.shifts_are_unique
    assert stats.composition_rank == 3
    assert stats.per_type_energy_shifts == pytest.approx(ENERGIES, rel=1e-10)


def test_one_composition_gives_the_shortest_shifts():
    frames = [labelled("CH3CH2OH", seed, energy=-4100.0 + seed) for seed in range(3)]
    stats = statistics(frames, TYPES, 4.0)
    assert not stats.shifts_are_unique
    assert stats.composition_rank == 1
    shifts = stats.per_type_energy_shifts
    assert 2 * shifts["C"] + 6 * shifts["H"] + shifts["O"] == pytest.approx(-4099.0, rel=1e-12)
    assert shifts == pytest.approx({"C": 2 * shifts["O"], "H": 6 * shifts["O"], "O": -4099.0 / 41}, rel=1e-12)
    assert stats.per_atom_energy_mean == pytest.approx(-4099.0 / 9)
    assert stats.per_atom_energy_std == pytest.approx(1 / 9)


def test_absent_element():
    stats = statistics([labelled("H2O"), labelled("H2")], TYPES, 4.0)
    assert not stats.shifts_are_unique
    assert stats.per_type_energy_shifts == pytest.approx({"C": 0.0, "H": -13.6, "O": -2042.0})
    assert stats.per_type_forces_rms["C"] == stats.forces_rms


def test_isolated_atom_energies_replace_the_fit():
    given = {"O": -1.0, "H": -2.0, "C": -3.0}
    stats = statistics([labelled("H2O")], TYPES, 4.0, isolated_atom_energies=given)
    assert stats.per_type_energy_shifts == given
    assert list(stats.per_type_energy_shifts) == TYPES
    assert stats.shifts_are_unique


def test_graphs_or_structures():
    graphs = [graph_from_atoms(atoms, TYPES, 3.0, per_edge_type_cutoff={"H": 1.2}) for atoms in MIXTURE]
    from_graphs = statistics(graphs, TYPES, 3.0)
    assert from_graphs == statistics(MIXTURE, TYPES, 3.0, per_edge_type_cutoff={"H": 1.2})
    assert from_graphs.avg_num_neighbors < statistics(MIXTURE, TYPES, 3.0).avg_num_neighbors


def test_single_structure_without_forces():
    stats = statistics([labelled("H2O", forces=False)], TYPES, 4.0)
    assert stats.forces_rms is None
    assert stats.per_type_forces_rms is None
    assert stats.per_atom_energy_std == 0.0


def test_structures_without_forces_are_left_out():
    mixed = statistics([labelled("H2O"), labelled("CH4", forces=False)], TYPES, 4.0)
    assert mixed.forces_rms == statistics([labelled("H2O")], TYPES, 4.0).forces_rms


@pytest.mark.parametrize(
    ("structures", "options", "message"),
    [
        ([], {}, "at least one structure"),
        ([molecule("H2O")], {}, "structure 0 has no energy"),
        ([labelled("H2O")], {"isolated_atom_energies": {"H": 0.0, "O": 0.0}}, "isolated_atom_energies: C is missing"),
        ([labelled("H2O")], {"isolated_atom_energies": {"Ca": 0.0}}, "'Ca' is not in type_names; did you mean 'C'"),
        ([labelled("H2O")], {"r_max": 0.5}, r"no atom has a neighbour within r_max = 0.5 Å"),
    ],
)
def test_errors(structures, options, message):
    with pytest.raises(InputError, match=message):
        statistics(structures, TYPES, **{"r_max": 4.0, **options})


def test_import_needs_neither_ase_nor_vesin():
    import subprocess
    import sys

    program = (
        "import sys, nequip_fast.data; sys.exit(any(name in sys.modules for name in ('ase', 'vesin', 'lightning')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_torch_default_dtype_does_not_matter():
    torch.set_default_dtype(torch.float32)
    assert statistics(MIXTURE, TYPES, 4.0).per_type_energy_shifts == pytest.approx(ENERGIES, rel=1e-10)
