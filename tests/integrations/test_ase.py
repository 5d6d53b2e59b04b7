"""The ASE calculator: equal to the model, to finite differences, and to itself whatever was calculated before."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import read, write

from nequip_fast.data import graph_from_atoms
from nequip_fast.engine import Potential, compile
from nequip_fast.errors import InputError, MissingExtra
from nequip_fast.integrations.ase import CommitteeCalculator, NequIPFastCalculator, batch_evaluate
from nequip_fast.md import MDConfig, read_trajectory, simulate
from nequip_fast.model import GraphModel, NequIPGNNModel, save_model

TYPES = ["H", "C", "O", "Cu"]


@pytest.fixture(scope="module")
def model() -> GraphModel:
    return NequIPGNNModel(
        seed=1,
        model_dtype="float64",
        type_names=TYPES,
        r_max=3.2,
        num_layers=2,
        l_max=1,
        num_features=4,
        radial_mlp_width=8,
        avg_num_neighbors=8.0,
        per_type_energy_shifts={"H": -1.0, "C": -5.0, "O": -9.0, "Cu": -3.0},
    ).eval()


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    atoms.rattle(0.05, seed=seed)
    return atoms


def triclinic() -> Atoms:
    crystal = bulk("Cu", "fcc", 3.7)  # one atom, cell smaller than the cutoff
    crystal.set_cell(crystal.cell.array @ np.array([[1.02, 0.1, 0], [0, 0.97, 0.08], [0.05, 0, 1]]), scale_atoms=True)
    return crystal


def slab() -> Atoms:
    return rattled(fcc111("Cu", (2, 2, 2), a=3.7, vacuum=6.0))  # periodic in two directions


STRUCTURES = {
    "molecule": lambda: rattled(molecule("CH3CH2OH")),
    "molecule in a box": lambda: rattled(molecule("CH3OH", vacuum=4.0)),
    "crystal": lambda: rattled(bulk("Cu", "fcc", 3.7, cubic=True).repeat((2, 1, 1))),
    "triclinic": triclinic,
    "slab": slab,
    "wire": lambda: Atoms("CHO", [[0, 0, 0], [1, 0.1, 0], [2.2, 0, 0.3]], cell=[4.0, 0, 0], pbc=[True, False, False]),
    "one atom": lambda: Atoms("O"),
    "one atom far from its images": lambda: Atoms("O", cell=[9, 9, 9], pbc=True),
    "no neighbours": lambda: Atoms("H2", [[0, 0, 0], [0, 0, 20.0]]),
}


def results(atoms: Atoms, calculator: NequIPFastCalculator) -> dict[str, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = calculator
    values = {
        "energy": atoms.get_potential_energy(),
        "free_energy": atoms.get_potential_energy(force_consistent=True),
        "energies": atoms.get_potential_energies(),
        "forces": atoms.get_forces(),
    }
    if atoms.pbc.any() and atoms.cell.rank == 3:
        values["stress"] = atoms.get_stress()
    return values


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("name", STRUCTURES)
def test_equals_the_model(model: GraphModel, name: str) -> None:
    atoms = STRUCTURES[name]()
    values = results(atoms, NequIPFastCalculator(model))
    direct = model(graph_from_atoms(atoms, TYPES, model.r_max))
    assert values["energy"] == values["free_energy"] == float(direct["total_energy"])
    assert values["energies"].shape == (len(atoms),)
    np.testing.assert_allclose(values["energies"].sum(), values["energy"], rtol=1e-13)
    np.testing.assert_array_equal(values["forces"], direct["forces"].numpy())
    if "stress" in values:
        s = direct["stress"][0].numpy()
        np.testing.assert_array_equal(values["stress"], [s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])


@pytest.mark.parametrize("name", ["molecule", "crystal", "triclinic", "slab", "wire"])
def test_forces_are_minus_the_energy_gradient(model: GraphModel, name: str) -> None:
    atoms = STRUCTURES[name]()
    atoms.calc = NequIPFastCalculator(model)
    forces = atoms.get_forces()
    step = 2e-5
    for atom, axis in ((0, 0), (len(atoms) - 1, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[atom, axis] += sign * step
            energies.append(moved.get_potential_energy())
        numeric = -(energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(numeric, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", ["crystal", "triclinic", "slab"])
def test_stress_is_the_strain_derivative(model: GraphModel, name: str) -> None:
    atoms = STRUCTURES[name]()
    atoms.calc = NequIPFastCalculator(model)
    stress = atoms.get_stress(voigt=False)
    step = 1e-4
    for a, b in ((0, 0), (1, 2), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += 0.5 * sign * step
            strain[b, a] += 0.5 * sign * step
            strained = atoms.copy()
            strained.calc = atoms.calc
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(strained.get_potential_energy())
        numeric = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert stress[a, b] == pytest.approx(numeric, rel=1e-5, abs=1e-8)


def test_no_stress_without_a_periodic_volume(model: GraphModel) -> None:
    for name in ("molecule", "molecule in a box", "wire", "one atom"):
        atoms = STRUCTURES[name]()
        atoms.calc = NequIPFastCalculator(model)
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


def test_results_do_not_depend_on_what_was_calculated_before(model: GraphModel) -> None:
    """One calculator through moves, cell changes, added and removed atoms; each time as a fresh one, bit for bit."""
    used = NequIPFastCalculator(model, skin=0.6)
    rng = np.random.default_rng(0)
    atoms = rattled(bulk("Cu", "fcc", 3.7, cubic=True).repeat((2, 1, 1)))

    def check() -> None:
        assert_same(results(atoms, used), results(atoms, NequIPFastCalculator(model)))

    check()
    for _ in range(25):  # creep far enough to need several collections
        atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
        check()
    assert 1 < used.neighbours.num_collections < 26
    atoms.set_cell(atoms.cell * 1.05, scale_atoms=True)
    check()
    atoms.set_cell(atoms.cell * 0.97)  # the atoms stay where they are
    check()
    atoms.append("H")
    atoms.positions[-1] = [0.9, 0.9, 0.9]
    check()
    del atoms[[0, 3]]
    check()
    atoms.symbols[0] = "O"
    check()
    atoms.pbc = [True, False, True]
    check()
    atoms.pbc = False
    check()
    atoms.positions[1] += 30.0
    check()
    atoms = molecule("CH3OH")
    check()


def test_wrapping_shifting_and_permuting_change_nothing(model: GraphModel) -> None:
    calculator = NequIPFastCalculator(model)
    atoms = rattled(triclinic().repeat((2, 2, 1)), seed=3)
    before = results(atoms, calculator)
    wrapped = atoms.copy()
    wrapped.positions += 7 * atoms.cell[0] - 3 * atoms.cell[2] + [0.3, 5.1, -2.2]
    wrapped.positions[1] += atoms.cell[1]
    wrapped.wrap()
    order = np.array([2, 0, 3, 1])
    for other, rows in ((wrapped, slice(None)), (atoms[order], order)):
        after = results(other, calculator)
        np.testing.assert_allclose(after["energy"], before["energy"], rtol=1e-12)
        np.testing.assert_allclose(after["energies"], before["energies"][rows], rtol=1e-12)
        np.testing.assert_allclose(after["forces"], before["forces"][rows], atol=1e-11)
        np.testing.assert_allclose(after["stress"], before["stress"], atol=1e-12)


def test_supercell_is_extensive(model: GraphModel) -> None:
    calculator = NequIPFastCalculator(model)
    small, large = results(triclinic(), calculator), results(triclinic().repeat(3), calculator)
    assert large["energy"] == pytest.approx(27 * small["energy"], rel=1e-12)
    np.testing.assert_allclose(large["stress"], small["stress"], atol=1e-12)


def test_from_a_file_and_in_another_precision(model: GraphModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, model)
    atoms = STRUCTURES["molecule"]()
    exact = results(atoms, NequIPFastCalculator(model))
    assert_same(results(atoms, NequIPFastCalculator(path, device="cpu", dtype="float64")), exact)
    single = NequIPFastCalculator(str(path), dtype=torch.float32)
    assert single.model.model_dtype == torch.float32
    assert model.model_dtype == torch.float64
    rounded = results(atoms, single)
    assert not np.array_equal(rounded["forces"], exact["forces"])
    np.testing.assert_allclose(rounded["forces"], exact["forces"], atol=1e-5)


def test_bad_structures_and_settings(model: GraphModel) -> None:
    calculator = NequIPFastCalculator(model)

    def energy_of(atoms: Atoms) -> float:
        atoms.calc = calculator
        return atoms.get_potential_energy()

    with pytest.raises(InputError, match="holds Xe, but the model knows only H, C, O, Cu"):
        energy_of(Atoms("OXe", [[0, 0, 0], [0, 0, 2]]))
    with pytest.raises(InputError, match="position of atom 1 "):
        energy_of(Atoms("OH", [[0, 0, 0], [0, np.nan, 2]]))
    with pytest.raises(InputError, match="0 and 2 are at the same place"):
        energy_of(Atoms("OHH", [[0, 0, 0], [0, 0, 1], [0, 0, 0]]))
    with pytest.raises(InputError, match="same place"):
        energy_of(Atoms("OH", [[0, 0, 0], [0, 0, 5]], cell=[5, 5, 5], pbc=True))
    assert np.isfinite(energy_of(Atoms("OH", [[0, 0, 0], [0, 0, 1]])))  # and it goes on working
    with pytest.raises(InputError, match="no such file"):
        NequIPFastCalculator("nowhere.safetensors")
    with pytest.raises(InputError, match="float16"):
        NequIPFastCalculator(model, dtype="float16")
    with pytest.raises(InputError, match="not one of auto, cpu"):
        NequIPFastCalculator(model, device="gpu")


def test_missing_ase_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ase", None)
    monkeypatch.delitem(sys.modules, "nequip_fast.integrations.ase")
    with pytest.raises(MissingExtra, match=r"pip install 'nequip_fast\[md\]'"):
        importlib.import_module("nequip_fast.integrations.ase")


def test_dynamics_with_the_model_resumes_bit_for_bit(model: GraphModel, tmp_path: Path) -> None:
    """Also with a model file and neighbour lists of different ages."""
    save_model(tmp_path / "model.safetensors", model)
    write(tmp_path / "start.xyz", rattled(molecule("CH3OH")))
    common = {
        "model": str(tmp_path / "model.safetensors"),
        "structure": str(tmp_path / "start.xyz"),
        "temperature_K": 600.0,
        "interval": 7,
        "max_temperature_K": 1e9,  # an untrained model is no potential to trust
    }
    simulate(MDConfig(**common, output=str(tmp_path / "whole"), steps=40), progress=False)
    simulate(MDConfig(**common, output=str(tmp_path / "parts"), steps=21), progress=False)
    simulate(MDConfig(**common, output=str(tmp_path / "parts"), steps=40, resume=True), progress=False)
    whole, parts = (read_trajectory(tmp_path / name / "trajectory.traj")[-1] for name in ("whole", "parts"))
    np.testing.assert_array_equal(whole.positions, parts.positions)
    np.testing.assert_array_equal(whole.get_momenta(), parts.get_momenta())
    assert np.linalg.norm(whole.positions - molecule("CH3OH").positions, axis=1).max() > 0.3
    save_model(tmp_path / "model.safetensors", NequIPGNNModel(**_other(model)))
    with pytest.raises(InputError, match="this run began with model"):
        simulate(MDConfig(**common, output=str(tmp_path / "parts"), steps=60, resume=True), progress=False)


@pytest.fixture(scope="module")
def members(model: GraphModel) -> list[Potential | GraphModel]:
    """Three models, two of them compiled, one with another cutoff and order of the types."""
    other = {**_other(model), "r_max": 3.6, "type_names": TYPES[::-1]}
    return [compile(model), compile(NequIPGNNModel(**_other(model)).eval()), NequIPGNNModel(**other).eval()]


def test_a_committee_is_the_mean_and_the_sample_deviation_of_its_members(members) -> None:
    committee = CommitteeCalculator(members, device="cpu")
    names = "energy", "energies", "forces", "stress"
    for name in ("crystal", "molecule", "slab"):
        atoms = STRUCTURES[name]()
        alone = [one.calc.results for member in members for one in batch_evaluate([atoms], member, device="cpu")]
        found = results(atoms, committee)
        assert found["free_energy"] == found["energy"]
        for quantity in names if "stress" in found else names[:3]:
            values = np.array([result[quantity] for result in alone])
            std = committee.results[f"{quantity}_std"]
            assert np.shape(std) == np.shape(found[quantity])
            np.testing.assert_allclose(found[quantity], values.mean(0), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(std, np.sqrt(((values - values.mean(0)) ** 2).sum(0) / 2), rtol=1e-7, atol=1e-9)
        assert ("stress_std" in committee.results) == ("stress" in found)
        assert [one.energy for one in committee.predictions] == pytest.approx([one["energy"] for one in alone])
    atoms.calc = committee
    assert atoms.calc.get_property("forces_std", atoms).shape == (len(atoms), 3)
    assert atoms.calc.get_property("energy_std", atoms) > 0


def test_members_with_one_cutoff_share_a_neighbour_list(members) -> None:
    committee = CommitteeCalculator(members, device="cpu")
    atoms = STRUCTURES["crystal"]()
    for _ in range(3):
        results(atoms, committee)
        atoms.positions += 0.01
    lists = [member.neighbours for member in committee.members]
    assert lists[0] is lists[1]
    assert lists[2] is not lists[0]
    assert lists[0].num_collections == lists[2].num_collections == 1


def test_committees_that_cannot_be(model: GraphModel, members) -> None:
    def knowing(*types: str) -> GraphModel:
        return NequIPGNNModel(**{**_other(model), "type_names": list(types), "per_type_energy_shifts": None}).eval()

    with pytest.raises(InputError, match="committee of 1"):
        CommitteeCalculator([model])
    with pytest.raises(InputError, match="no element in common"):
        CommitteeCalculator([knowing("H", "O"), knowing("C")])
    committee = CommitteeCalculator([members[0], knowing("O", "H")], device="cpu")
    assert results(molecule("H2O"), committee)["forces"].shape == (3, 3)
    with pytest.raises(InputError, match=r"holds C, but member 1 of the committee \(from 0\) knows only O, H"):
        results(molecule("CH3OH"), committee)


@pytest.mark.parametrize("compiled", [True, False])
def test_batches_equal_single_structures_and_can_be_written(model, members, tmp_path: Path, compiled: bool) -> None:
    structures = [make() for make in STRUCTURES.values()]
    structures[0].info["name"] = "ethanol"
    if compiled:
        members[0].save(tmp_path / "model.nqf")
    else:
        save_model(tmp_path / "model.safetensors", model)
    path = tmp_path / ("model.nqf" if compiled else "model.safetensors")
    evaluated = batch_evaluate(iter(structures), path, device="cpu", atoms_per_batch=10)
    write(tmp_path / "evaluated.xyz", evaluated)
    assert all(atoms.calc is None for atoms in structures)
    for atoms, found, stored in zip(structures, evaluated, read(tmp_path / "evaluated.xyz", ":"), strict=True):
        alone = results(atoms, members[0].calculator() if compiled else NequIPFastCalculator(model))
        assert found == atoms
        assert found.info == atoms.info
        assert set(found.calc.results) == set(alone)
        for name in alone:
            np.testing.assert_allclose(found.calc.results[name], alone[name], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(stored.get_forces(), alone["forces"], atol=1e-7)
        assert stored.get_potential_energy() == pytest.approx(alone["energy"], abs=1e-7)


def test_batches_name_the_structure_that_is_wrong(members) -> None:
    assert batch_evaluate([], members[0]) == []
    with pytest.raises(InputError, match="structure 1: the structure holds Xe"):
        batch_evaluate([molecule("H2O"), Atoms("Xe")], members[0])
    with pytest.raises(InputError, match="atoms_per_batch=0"):
        batch_evaluate([molecule("H2O")], members[0], atoms_per_batch=0)


def _other(model: GraphModel) -> dict:
    return {name: value for name, value in model.config.items() if name != "builder"} | {"seed": 2}
