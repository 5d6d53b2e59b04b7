"""The main job on the data that ship with the project: train on ethanol, reach a stated error."""

from __future__ import annotations

import json
from pathlib import Path

from nequip_fast.cli import main

DEMO = Path(__file__).parents[2] / "demo"

EPOCHS = 14  # about a minute on one core


def test_reaches_its_error(tmp_path: Path) -> None:
    """demo/ethanol.yaml for a fixed number of epochs instead of a fixed time, so that every machine gets as far."""
    arguments = [
        str(DEMO / "ethanol.yaml"),
        f"data.file={DEMO / 'data' / 'ethanol.xyz'}",
        f"output={tmp_path}",
        "device=cpu",
        "threads=1",
        f"training.max_epochs={EPOCHS}",
        "training.max_time=1h",
    ]
    assert main(["train", *arguments]) == 0
    test = json.loads((tmp_path / "errors.json").read_text())["test"]
    model, trivial = test["model"], test["trivial"]
    assert model["forces_mae"] < 0.046  # eV/Å; reached: 0.0348
    assert model["energy_mae"] < 0.0017  # eV/atom; reached: 0.00124
    assert model["forces_mae"] < 0.06 * trivial["forces_mae"]
    assert model["energy_mae"] < 0.16 * trivial["energy_mae"]
