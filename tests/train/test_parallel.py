"""Several processes: the same gradients, hence the same weights, as one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from nequip_fast.files import load_tensors


def test_two_processes_equal_one(springs: Path, tiny_run: Callable[..., list[str]], tmp_path: Path) -> None:
    """In float64, where another order of the sums changes nothing that can be seen; with an uneven last batch."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    for devices in (1, 2):
        arguments = tiny_run(
            springs,
            tmp_path / str(devices),
            devices=devices,
            training__max_epochs=2,
            training__batch_size=6,
            model__model_dtype="float64",
            data__n_train=21,
            data__n_val=3,
        )
        command = [sys.executable, "-m", "nequip_fast.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = (load_tensors(tmp_path / name / "last.safetensors")[0] for name in ("1", "2"))
    for name, tensor in one.items():
        if not name.startswith("rng."):
            torch.testing.assert_close(
                two[name], tensor, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )
