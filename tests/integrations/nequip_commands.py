"""nequip's commands in a process of their own, with nequip_fast installed beside nequip as far as nequip can see."""

from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = Path(__file__).with_name("nequip_train.yaml")
MODIFIER = "enable_NequipFast"
PROGRAMS = {"nequip-train": "train", "nequip-package": "package", "nequip-compile": "compile"}
Command = Sequence[str]


def train(output: Path, modifiers: Sequence[str] = (), **settings: str) -> Command:
    """nequip-train into a folder."""
    names = ",".join(f"{{modifier: {name}}}" for name in modifiers)
    overrides = [f"{name}={value}" for name, value in settings.items()]
    place = ["-cp", str(CONFIGURATION.parent), "-cn", CONFIGURATION.stem, f"hydra.run.dir={output}"]
    return ["nequip-train", *place, f"modifiers=[{names}]", *overrides]


def package(checkpoint: Path, output: Path) -> Command:
    """nequip-package build."""
    return ["nequip-package", "build", str(checkpoint), str(output)]


def compile(model: Path, output: Path, *modifiers: str) -> Command:
    """nequip-compile for ASE on the CPU."""
    options = ["--mode", "aotinductor", "--device", "cpu", "--target", "ase"]
    return ["nequip-compile", str(model), str(output), *options, *(["--modifiers", *modifiers] if modifiers else [])]


def run(folder: Path, commands: Sequence[Command]) -> None:
    """One after the other; a failure shows what was printed.

    The entry point, which an editable installation may be too old to have, comes from a folder made for it.
    """
    about = folder / "plugin" / "nequip_fast_plugin-0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nequip-fast-plugin\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[nequip.extension]\ninit_always = nequip_fast.integrations.nequip\n")
    result = subprocess.run(
        [sys.executable, __file__, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(about.parent)])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]


def metrics(output: Path) -> list[float]:
    """Every number that a training wrote: losses and metrics of all steps and epochs."""
    with (output / "metrics.csv").open() as lines:
        return [float(value) for row in csv.DictReader(lines) for value in row.values() if value]


def _main(commands: Sequence[Command]) -> None:
    from omegaconf import OmegaConf

    for program, *arguments in commands:
        OmegaConf.clear_resolver("training_data_stats")  # nequip-train registers it for good
        sys.argv = [program, *arguments]
        importlib.import_module(f"nequip.scripts.{PROGRAMS[program]}").main()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
