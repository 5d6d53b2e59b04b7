"""Interrupted runs: killed, stopped by Ctrl-C, finished, restarted, changed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nequip_fast.cli import main
from nequip_fast.files import load_tensors

EPOCHS = 24
Arguments = Callable[..., list[str]]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """The command line in a process of its own, with one thread so that every run adds in the same order."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "nequip_fast.cli", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rows(output: Path) -> list[dict[str, str]]:
    """metrics.csv without the times."""
    if not (output / "metrics.csv").exists():
        return []
    with open(output / "metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name != "elapsed_s"} for row in csv.DictReader(file)]


def interrupt_after(process: subprocess.Popen[str], output: Path, epochs: int, number: signal.Signals) -> str:
    """Send a signal once so many epochs are on file; returns what the process printed."""
    deadline = time.monotonic() + 120
    while len(rows(output)) < epochs:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    return process.communicate(timeout=60)[0]


def assert_same_result(one: Path, other: Path) -> None:
    """Weights, averages, optimiser and random state agree bit for bit, and so does the history."""
    for name in ("model.safetensors", "best.safetensors", "last.safetensors"):
        tensors, expected = load_tensors(one / name)[0], load_tensors(other / name)[0]
        assert tensors.keys() == expected.keys()
        for key, tensor in tensors.items():
            assert torch.equal(tensor, expected[key]), f"{name}: {key}"
    assert rows(one) == rows(other)


@pytest.fixture(scope="module")
def uninterrupted(springs: Path, tiny_run: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted")
    process = start(tiny_run(springs, output, training__max_epochs=EPOCHS))
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed
    assert len(rows(output)) == EPOCHS
    return output


def test_killed_twice_and_resumed(springs: Path, tiny_run: Arguments, uninterrupted: Path, tmp_path: Path) -> None:
    """Once with resume points at the ends of epochs, once with one after every step."""
    arguments = tiny_run(springs, tmp_path / "run", training__max_epochs=EPOCHS)
    interrupt_after(start(arguments), tmp_path / "run", 2, signal.SIGKILL)
    assert len(rows(tmp_path / "run")) < EPOCHS
    every_step = [*arguments, "training.checkpoint_interval=0"]
    interrupt_after(start(every_step), tmp_path / "run", 8, signal.SIGKILL)
    assert len(rows(tmp_path / "run")) < EPOCHS
    last = start(arguments)
    printed = last.communicate(timeout=240)[0]
    assert last.returncode == 0, printed
    assert "resuming in epoch" in printed
    assert_same_result(tmp_path / "run", uninterrupted)


def test_ctrl_c(springs: Path, tiny_run: Arguments, uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    arguments = tiny_run(springs, output, training__max_epochs=EPOCHS)
    process = start(arguments)
    printed = interrupt_after(process, output, 2, signal.SIGINT)
    assert process.returncode == 130
    assert printed.strip().splitlines()[-1].endswith("run the same command again to resume")
    assert "Traceback" not in printed
    assert not [path for path in output.iterdir() if path.name.startswith(".")]  # no temporary file is left
    resumed = start(arguments)
    printed = resumed.communicate(timeout=240)[0]
    assert resumed.returncode == 0, printed
    assert_same_result(output, uninterrupted)


def test_finished_run_says_so(
    trained: Path, springs: Path, tiny_run: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir()}
    assert main(tiny_run(springs, trained)) == 0
    assert "this run is finished (3 epochs done); overwrite=true starts it again" in " ".join(
        capsys.readouterr().out.split()
    )
    assert {path: path.stat().st_mtime_ns for path in trained.iterdir()} == before


def test_overwrite(springs: Path, tiny_run: Arguments, tmp_path: Path) -> None:
    assert main(tiny_run(springs, tmp_path, training__max_epochs=1)) == 0
    assert main(tiny_run(springs, tmp_path, training__max_epochs=2, seed=5, overwrite="true")) == 0
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"training__learning_rate": 0.5}, "training.learning_rate"),
        ({"model__r_max": 4.0}, "model.r_max"),
        ({"seed": 3}, "seed"),
    ],
)
def test_other_settings_in_the_same_folder(
    trained: Path,
    springs: Path,
    tiny_run: Arguments,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, float],
    key: str,
) -> None:
    assert main(tiny_run(springs, trained, **change)) == 2
    message = capsys.readouterr().err
    assert f"holds a run with {key}=" in message
    assert "overwrite=true" in message


def test_other_data_in_the_same_folder(
    trained: Path, springs: Path, tiny_run: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.xyz"
    other.write_text(springs.read_text().replace("energy=-13.9", "energy=-12.9", 1))
    assert main(tiny_run(other, trained)) == 2
    assert "other content in data.file" in capsys.readouterr().err


def test_results_without_a_resume_point_are_kept(
    springs: Path, tiny_run: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    assert main(tiny_run(springs, tmp_path)) == 2
    assert "holds model.safetensors but no last.safetensors to resume" in capsys.readouterr().err
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


def test_a_lost_final_model_is_written_again(springs: Path, tiny_run: Arguments, tmp_path: Path) -> None:
    """As after a kill between the last epoch and the final files."""
    assert main(tiny_run(springs, tmp_path, training__max_epochs=2)) == 0
    expected = load_tensors(tmp_path / "model.safetensors")[0]
    (tmp_path / "model.safetensors").unlink()
    assert main(tiny_run(springs, tmp_path, training__max_epochs=2)) == 0
    again = load_tensors(tmp_path / "model.safetensors")[0]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.items())


def test_time_limit(springs: Path, tiny_run: Arguments, tmp_path: Path) -> None:
    """Ends in time, cleanly, with the learning rate fallen to almost nothing."""
    started = time.monotonic()
    assert main(tiny_run(springs, tmp_path, training__max_epochs=100000, training__max_time="4s")) == 0
    assert time.monotonic() - started < 30
    final = rows(tmp_path)[-1]
    assert float(final["learning_rate"]) < 1e-4
    assert (tmp_path / "model.safetensors").exists()
