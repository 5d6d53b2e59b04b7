"""Files of a run: ``trajectory.traj`` (frames that are also restart points), ``thermo.csv``, ``md.json``.

An ASE ``.traj`` makes a frame visible by raising a counter after the frame is on file, so a process killed at any
moment leaves every earlier frame readable. Positions, momenta and the state of the random generator are stored
exactly, which makes the last frame the restart point.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nequip_fast.errors import InputError, require
from nequip_fast.files import atomic_path, write_text

if TYPE_CHECKING:
    from ase import Atoms

THERMO_COLUMNS = ("step", "time_ps", "temperature_K", "potential_eV", "kinetic_eV", "total_eV")


class RunFiles:
    """Reads and appends the files of one output directory."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.trajectory = self.directory / "trajectory.traj"
        self.thermo = self.directory / "thermo.csv"
        self.settings = self.directory / "md.json"

    def exist(self) -> bool:
        """Whether there is a run to go on with."""
        return self.trajectory.is_file()

    def start(self, settings: dict[str, Any], frame: Atoms, row: dict[str, float]) -> None:
        """Begin a run; the trajectory comes last, so its presence means that everything else is there."""
        self.trajectory.unlink(missing_ok=True)
        write_text(self.settings, json.dumps(settings, indent=1) + "\n")
        write_text(self.thermo, ",".join(THERMO_COLUMNS) + "\n" + _line(row))
        with atomic_path(self.trajectory) as temporary:
            _append_frame(temporary, frame)

    def append(self, frame: Atoms, row: dict[str, float]) -> None:
        """Add one interval: the log first, so that no frame lacks its line."""
        with open(self.thermo, "a") as file:
            file.write(_line(row))
        _append_frame(self.trajectory, frame)

    def last(self) -> Atoms:
        """The last complete frame."""
        frames = read_trajectory(self.trajectory, slice(-1, None))
        if not frames:
            raise InputError(f"{self.trajectory}: holds no frame to go on from; start again with overwrite")
        return frames[0]

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Raise unless ``settings`` are those the run began with."""
        try:
            before = json.loads(self.settings.read_text())
        except (OSError, json.JSONDecodeError):
            raise InputError(f"{self.settings}: missing or damaged; start again with overwrite") from None
        for name, value in settings.items():
            if before.get(name) != value:
                raise InputError(
                    f"{self.directory}: this run began with {name} = {before.get(name)!r}, not {value!r}; give the "
                    "same setting to resume it, or overwrite, or another output directory"
                )

    def trim_thermo(self, step: int) -> None:
        """Drop log lines after ``step``: the run repeats them."""
        columns = read_thermo(self.thermo)
        kept = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        text = ",".join(THERMO_COLUMNS) + "\n" + "".join(_line(row) for row in kept if row["step"] <= step)
        if text != self.thermo.read_text():
            write_text(self.thermo, text)


def read_trajectory(path: str | os.PathLike[str], select: slice = slice(None)) -> list[Atoms]:
    """Frames of a trajectory, with momenta, energy and forces.

    Raises:
        InputError: missing or not an ASE trajectory.
    """
    trajectory = require("ase.io.trajectory", "md")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such trajectory")
    try:
        with trajectory.TrajectoryReader(str(path)) as reader:
            return [reader[i] for i in range(len(reader))[select]]
    except Exception as error:  # ASE raises a different type for every kind of damage
        raise InputError(f"{path}: not a readable ASE trajectory: {error}") from None


def read_thermo(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float64]]:
    """Columns of a log by name (:data:`THERMO_COLUMNS`); a last line cut short is left out."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such log")
    with open(path, newline="") as file:
        text = file.read()
    header, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines())
    values = np.array([[float(value) for value in row] for row in rows]).reshape(-1, len(header))
    return dict(zip(header, values.T, strict=True))


def _append_frame(path: Path, frame: Atoms) -> None:
    trajectory = require("ase.io.trajectory", "md")
    with trajectory.TrajectoryWriter(str(path), "a") as writer:
        writer.write(frame)


def _line(row: dict[str, float]) -> str:
    # 17 significant digits: a resumed log equals an uninterrupted one to the last bit
    return ",".join([str(int(row["step"])), *(f"{row[name]:.17g}" for name in THERMO_COLUMNS[1:])]) + "\n"
