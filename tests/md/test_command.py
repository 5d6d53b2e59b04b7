"""The command line of molecular dynamics."""

from pathlib import Path

import pytest

from nequip_fast.cli import main
from nequip_fast.errors import InputError
from nequip_fast.md import MDConfig, read_thermo
from nequip_fast.md.cli import parse
from nequip_fast.model import NequIPGNNModel, save_model


def test_every_setting_can_be_given() -> None:
    assert parse(["m", "s", "--time-ps=2", "--temperature", "350"]) == MDConfig(
        "m", "s", time_ps=2.0, temperature_K=350.0
    )
    given = parse(
        [
            *"ms",
            "--steps=5",
            "--ensemble=nve",
            "--resume",
            "--index=3",
            "--max_temperature_K=1e4",
            "--velocities=structure",
        ]
    )
    assert given == MDConfig(
        "m", "s", steps=5, ensemble="nve", resume=True, index=3, max_temperature_K=1e4, velocities="structure"
    )
    assert parse(["m", "s", "--steps", "1", "--index", "-2"]).index == -2


def test_misspelt_options_are_named() -> None:
    with pytest.raises(InputError, match=r"--tmeperature_K.*did you mean '--temperature_K'"):
        parse(["m", "s", "--tmeperature-K", "300", "--steps", "1"])


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["md", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("temperature_K", "friction_per_ps", "nvt-bussi", "--resume", "examples:"):
        assert name in text


def test_run_resume_and_refusal(tmp_path: Path, ethane: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = NequIPGNNModel(
        seed=1, model_dtype="float64", type_names=["H", "C"], r_max=3.0, num_layers=1, l_max=1, num_features=2,
        radial_mlp_width=4, avg_num_neighbors=7.0,
    )  # fmt: skip
    save_model(tmp_path / "model.safetensors", model)
    command = ["md", str(tmp_path / "model.safetensors"), ethane, "--ensemble", "nve", "--interval", "2"]
    command += ["--output", str(tmp_path / "out")]
    assert main([*command, "--steps", "8"]) == 0
    text = capsys.readouterr().out
    for words in ("8 steps of 0.5 fs", "ns/day", "total energy conserved", "energy.png", "thermo.csv"):
        assert words in text
    assert main([*command, "--steps", "8"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--steps", "12", "--resume"]) == 0
    assert read_thermo(tmp_path / "out" / "thermo.csv")["step"].tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert main([*command, "--steps", "12", "--resume"]) == 0
    assert "nothing left to do" in capsys.readouterr().out
