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
from ase.io import write

from nequip_fast.data import graph_from_atoms
from nequip_fast.errors import InputError, MissingExtra
from nequip_fast.integrations.ase import NequIPFastCalculator
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


def _other(model: GraphModel) -> dict:
    return {name: value for name, value in model.config.items() if name != "builder"} | {"seed": 2}
