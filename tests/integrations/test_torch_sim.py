"""The model for torch-sim: equal to the potential whatever the systems, and what torch-sim asks of a model."""

from __future__ import annotations

import importlib
import sys
import types

import ase
import ase.build
import numpy as np
import pytest
import torch

from nequip_fast.engine import Potential, compile
from nequip_fast.errors import InputError, MissingExtra
from nequip_fast.model import build_model
from tests.model.model_cases import config

NAME = "nequip_fast.integrations.torch_sim"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python, torch-sim, or a later torch-sim."""
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.setattr(sys, "version_info", (3, 11, 9))
    with pytest.raises(MissingExtra, match=r"needs Python 3\.12"):
        importlib.import_module(NAME)
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    monkeypatch.setitem(sys.modules, "torch_sim", None)
    with pytest.raises(MissingExtra, match=r"nequip_fast\[torch-sim\]"):
        importlib.import_module(NAME)
    monkeypatch.setitem(sys.modules, "torch_sim", types.ModuleType("torch_sim"))
    monkeypatch.setattr("importlib.metadata.version", lambda _package: "0.3.0")
    with pytest.raises(MissingExtra, match=r"torch-sim 0\.3\.0 is installed, and 0\.6 or later is needed"):
        importlib.import_module(NAME)


@pytest.fixture(scope="module")
def torch_sim():
    return pytest.importorskip("torch_sim", reason="torch-sim 0.6 needs Python 3.12")


@pytest.fixture(scope="module")
def potential() -> Potential:
    types = ["C", "H", "O", "Si", "Mg", "Fe"]
    settings = {
        "type_names": types,
        "per_type_energy_shifts": -1.0,
        "per_type_energy_scales": 30.0,
        "num_layers": 2,
        "l_max": 2,
        "num_features": 8,
    }
    return compile(build_model({**config({}), **settings}).eval(), dtype=torch.float64, verify=False)


@pytest.fixture
def model(torch_sim, potential: Potential):
    return importlib.import_module(NAME).NequIPFastModel(potential, device="cpu")


def crystals() -> list[ase.Atoms]:
    """Of one to twelve atoms, shaken, one of them with a skew cell and atoms outside it."""
    found = [
        ase.build.bulk("Si", "diamond", a=5.43, cubic=True),
        ase.build.bulk("Mg", "hcp", a=3.21, c=5.21).repeat((3, 2, 1)),
        ase.build.bulk("Fe", "bcc", a=2.87),
        ase.build.bulk("MgO", "rocksalt", a=4.2),
    ]
    for number, atoms in enumerate(found):
        atoms.rattle(0.05, seed=number)
    found[1].set_cell(found[1].cell.array @ np.array([[1, 0.2, 0], [0, 1, 0.1], [0.3, 0, 1]]), scale_atoms=True)
    found[1].positions[0] += 2 * found[1].cell[1] - found[1].cell[0]
    return found


def assert_equal(found: dict[str, torch.Tensor], structures: list[ase.Atoms], potential: Potential) -> None:
    expected = [potential(atoms) for atoms in structures]
    np.testing.assert_allclose(found["energy"], [one.energy for one in expected], rtol=1e-12)
    np.testing.assert_allclose(found["forces"], np.concatenate([one.forces for one in expected]), atol=1e-11)
    if structures[0].pbc.any():
        np.testing.assert_allclose(found["stress"], np.stack([one.stress for one in expected]), atol=1e-12)
    else:
        assert found["stress"].isnan().all()


def test_equals_the_potential(torch_sim, model, potential) -> None:
    """Several systems, then others, then the same moved: no list is stale; nothing of the state is changed."""
    molecules = [ase.build.molecule(name) for name in ("C6H6", "CH3OH", "H2O")]
    for structures in (crystals(), molecules, crystals()[::-1], crystals()[1:2]):
        state = torch_sim.io.atoms_to_state(structures, "cpu", torch.float64)
        for _ in range(3):
            before = state.positions.clone()
            assert_equal(model(state), structures, potential)
            assert torch.equal(state.positions, before)
            for atoms in structures:
                atoms.positions += 0.3 * np.sin(np.arange(atoms.positions.size)).reshape(-1, 3)
            state.positions = torch.tensor(np.concatenate([atoms.positions for atoms in structures]))


def test_tensors_in_any_layout(torch_sim, model, potential) -> None:
    """Joined states have cells and positions that are views in other strides."""
    structures = crystals()
    parts = [torch_sim.io.atoms_to_state([atoms], "cpu", torch.float64) for atoms in structures]
    state = torch_sim.concatenate_states(parts)
    state.cell = state.cell.mT.contiguous().mT
    state.positions = state.positions.T.contiguous().T
    assert not state.positions.is_contiguous()
    assert not state.cell.is_contiguous()
    assert_equal(model(state), structures, potential)


def test_what_torch_sim_asks_of_a_model(torch_sim, potential) -> None:
    module = importlib.import_module(NAME)
    check = importlib.import_module("torch_sim.models.interface").validate_model_outputs
    for dtype in (torch.float64, torch.float32):
        model = module.NequIPFastModel(potential, device="cpu", dtype=dtype, compute_stress=False)
        assert model.dtype == dtype
        check(model, torch.device("cpu"), dtype)
    model.compute_stress = model.compute_forces = False
    assert set(model(torch_sim.io.atoms_to_state(crystals(), "cpu", dtype))) == {"energy"}


def test_dynamics_conserve_energy(torch_sim, model) -> None:
    """Of each system, while the potential energies change a thousand times as much."""
    state = torch_sim.io.atoms_to_state(crystals()[:2], "cpu", torch.float64)
    state = torch_sim.nve_init(state, model, kT=torch.tensor(0.1))

    def total() -> torch.Tensor:
        kinetic = (state.momenta**2 / state.masses[:, None]).sum(1) / 2
        return state.energy.index_add(0, state.system_idx, kinetic)

    start, potential_energy = total(), state.energy.clone()
    for _ in range(50):
        state = torch_sim.nve_step(state, model, dt=torch.tensor(0.02))
    changed, drift = (state.energy - potential_energy).abs(), (total() - start).abs()
    assert (changed > 1000 * drift).all(), (changed, drift)


def test_files_and_errors(torch_sim, potential, tmp_path) -> None:
    module = importlib.import_module(NAME)
    potential.save(tmp_path / "model.nqf")
    structures = crystals()
    state = torch_sim.io.atoms_to_state(structures, "cpu", torch.float64)
    assert_equal(module.NequIPFastModel(tmp_path / "model.nqf", device="cpu")(state), structures, potential)
    with pytest.raises(InputError, match="the state holds Xe, but the model knows only C, H, O, Si, Mg, Fe"):
        module.NequIPFastModel(potential, device="cpu")(torch_sim.io.atoms_to_state([ase.Atoms("Xe")], "cpu"))
    with pytest.raises(InputError, match="dtype must be float32 or float64"):
        module.NequIPFastModel(potential, dtype=torch.float16)
