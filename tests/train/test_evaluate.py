"""``nequip-fast evaluate`` and what training writes, on a small trained model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest

from nequip_fast.cli import main
from nequip_fast.data import graph_from_atoms, read_structures
from nequip_fast.files import load_tensors
from nequip_fast.model import load_model
from nequip_fast.train.evaluate import evaluate_structures


@pytest.fixture(scope="module")
def model_file(trained: Path) -> Path:
    return trained / "model.safetensors"


def test_outputs_of_training(trained: Path) -> None:
    written = {path.name for path in trained.iterdir()}
    assert written == {
        "model.safetensors",
        "best.safetensors",
        "last.safetensors",
        "metrics.csv",
        "config.yaml",
        "errors.json",
        "learning_curve.png",
        "parity.png",
    }
    _, header = load_tensors(trained / "model.safetensors")
    summary = header["extra"]["training"]
    assert summary["epochs"] == 3
    assert summary["steps"] == 15
    assert summary["config"]["model"]["r_max"] == 3.0
    errors = json.loads((trained / "errors.json").read_text())
    assert errors == summary["errors"]
    assert errors["test"]["structures"] == 4
    with open(trained / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert int(best["epoch"]) == summary["best_epoch"]
    validated = errors["validation"]["model"]
    assert float(best["val_forces_rmse"]) == pytest.approx(validated["forces_rmse"], rel=1e-5)
    assert float(best["val_energy_mae"]) == pytest.approx(validated["energy_mae"], rel=1e-5)


def test_statistics_become_model_arguments(trained: Path, springs: Path) -> None:
    config = load_model(trained / "model.safetensors").config
    assert config["type_names"] == ["H", "O"]
    assert config["avg_num_neighbors"] == pytest.approx(2.0)
    shifts = config["per_type_energy_shifts"]
    energies = [atoms.get_potential_energy() for atoms in ase.io.read(springs, ":")]
    assert shifts["O"] + 2 * shifts["H"] == pytest.approx(np.mean(energies), abs=0.2)


def test_errors_against_single_structures(model_file: Path, springs: Path) -> None:
    """The batched evaluation against one structure at a time and formulas written out."""
    model = load_model(model_file)
    structures = read_structures(springs)
    result = evaluate_structures(model, structures, atoms_per_batch=10)
    energy, forces = [], []
    for atoms in structures:
        output = model(graph_from_atoms(atoms, model.type_names, model.r_max))
        energy.append((float(output["total_energy"]) - atoms.get_potential_energy()) / 3)
        forces.append(output["forces"].numpy() - atoms.get_forces())
    difference = np.array(forces)
    assert result.errors["energy_mae"] == pytest.approx(np.abs(energy).mean(), rel=1e-5)
    assert result.errors["energy_rmse"] == pytest.approx(np.sqrt(np.square(energy).mean()), rel=1e-5)
    assert result.errors["forces_mae"] == pytest.approx(np.abs(difference).mean(), rel=1e-5)
    assert result.errors["forces_O_rmse"] == pytest.approx(np.sqrt(np.square(difference[:, 0]).mean()), rel=1e-5)
    assert result.errors["forces_H_mae"] == pytest.approx(np.abs(difference[:, 1:]).mean(), rel=1e-5)
    reference = np.array([atoms.get_forces() for atoms in structures])
    assert result.trivial["forces_rmse"] == pytest.approx(np.sqrt(np.square(reference).mean()), rel=1e-10)
    per_atom = np.array([atoms.get_potential_energy() / 3 for atoms in structures])
    assert result.trivial["energy_rmse"] == pytest.approx(per_atom.std(), rel=1e-8)
    whole = evaluate_structures(model, structures, atoms_per_batch=10**6)
    assert whole.errors == pytest.approx(result.errors, rel=1e-5)


def test_command(model_file: Path, springs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot, file = tmp_path / "parity.png", tmp_path / "errors.json"
    assert main(["evaluate", str(model_file), str(springs), "--plot", str(plot), "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    for word in ("energy per atom", "meV/atom", "meV/Å", "on O", "trivial RMSE"):
        assert word in printed
    assert plot.read_bytes().startswith(b"\x89PNG")
    errors = json.loads(file.read_text())
    assert errors["structures"] == 28
    assert errors["model"]["forces_mae"] > 0


def test_unknown_element(
    model_file: Path, make_springs: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.xyz"
    make_springs(other, 2, symbols="SH2")
    assert main(["evaluate", str(model_file), str(other)]) == 2
    message = capsys.readouterr().err
    assert "structure 0" in message
    assert "S" in message
    assert "H, O" in message
    assert message.count("\n") == 1


def test_what_evaluate_cannot_read(
    model_file: Path, springs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, cut = tmp_path / "empty.xyz", tmp_path / "cut.safetensors"
    empty.touch()
    cut.write_bytes(model_file.read_bytes()[:-100])
    for model, data, word in (
        (model_file, empty, "empty"),
        (model_file, tmp_path / "nowhere.xyz", "no such file"),
        (cut, springs, "truncated or damaged"),
        (tmp_path / "nowhere.safetensors", springs, "no such file"),
    ):
        assert main(["evaluate", str(model), str(data)]) == 2
        message = capsys.readouterr().err
        assert word in message
        assert message.count("\n") == 1
