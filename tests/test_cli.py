"""The command line itself: help, dispatch, exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nequip_fast import cli
from nequip_fast.cli import COMMANDS, main


def test_usage_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("command", ["train", "evaluate", "compile", "md", "info"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: nequip-fast {command}" in capsys.readouterr().out


def test_misspelt_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "error: 'trian' is not a command of nequip-fast; did you mean 'train'?\n"


def test_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def command(argv: list[str]) -> int:
        raise PermissionError(13, "Permission denied", "/runs/mine")

    monkeypatch.setattr(cli, "info", command)
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "error: /runs/mine: Permission denied\n"


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"version", "torch", "operators"} <= facts.keys()
    assert main(["info"]) == 0
    assert facts["torch"] in capsys.readouterr().out


def test_print_config_can_be_used_as_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nequip_fast.train.config import read_config

    assert main(["train", "data.file=mine.xyz", "training.max_time=2m", "--print_config"]) == 0
    path = tmp_path / "config.yaml"
    path.write_text(capsys.readouterr().out)
    assert read_config(path) == read_config({"data": {"file": "mine.xyz"}, "training": {"max_time": "2m"}})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["data.file=x", "model.rmax=3"], "unknown key 'model.rmax'; did you mean 'model.r_max'?"),
        (["nowhere.yaml"], "nowhere.yaml: no such configuration file"),
        (["a.yaml", "b.yaml"], "'b.yaml' is neither the one configuration file (a.yaml) nor an override like a.b=c"),
        (["--seed"], "--seed needs a value, such as --seed=..."),
    ],
)  # fmt: skip
def test_wrong_arguments_of_train(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_bench_without_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site-packages" / "nequip_fast" / "cli.py"))
    assert main(["bench"]) == 2
    assert "clone the repository" in capsys.readouterr().err


def test_help_does_not_wait_for_lightning() -> None:
    """It takes seconds to import; only training needs it."""
    code = "import sys; from nequip_fast.cli import main; main(['train', '-h']); sys.exit('lightning' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment).returncode == 0
