"""Training on periodic structures with stress, some of which lack it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from nequip_fast.cli import main


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    """Strained and rattled copper cells of four atoms; every fifth has no stress."""
    rng = np.random.default_rng(0)
    structures = []
    for number in range(30):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        if number % 5:
            labels["stress"] = atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, **labels)
        structures.append(atoms)
    write(tmp_path / "copper.xyz", structures)
    return tmp_path / "copper.xyz"


def test_stress_is_learnt(copper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {
        "data.file": copper,
        "output": tmp_path / "run",
        "device": "cpu",
        "threads": 1,
        "data.n_train": 20,
        "data.n_val": 5,
        "data.n_test": 5,
        "model.num_layers": 1,
        "model.num_features": 8,
        "model.r_max": 4.0,
        "training.batch_size": 4,
        "training.max_epochs": 25,
        "training.schedule": "cosine",
        "training.loss.stress": 100,
    }
    assert main(["train", *(f"{name}={value}" for name, value in settings.items())]) == 0
    assert "stress" in capsys.readouterr().out
    errors = json.loads((tmp_path / "run" / "errors.json").read_text())["test"]
    for name in ("forces", "stress"):
        assert errors["model"][f"{name}_mae"] < 0.5 * errors["trivial"][f"{name}_mae"], name
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_stress"]) < float(rows[0]["train_stress"])
