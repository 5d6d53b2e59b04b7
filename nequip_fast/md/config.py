"""Everything that defines a molecular dynamics run."""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from nequip_fast.errors import InputError, nearest


def option(explanation: str, default: Any = MISSING) -> Any:
    """A dataclass field that carries its own help text."""
    return field(default=default, metadata={"help": explanation})


@dataclass(frozen=True)
class MDConfig:
    """Settings of one run; :func:`nequip_fast.md.simulate` carries it out, ``nequip-fast md --help`` explains them."""

    model: str = option("model file (model.safetensors, or a compiled *.nqf)")
    structure: str = option("structure to start from: any file ASE reads")
    output: str = option("folder for trajectory.traj, thermo.csv, md.json and plots", "md")
    index: int = option("which structure of the file; -1 is the last", -1)
    temperature_K: float = option("of the thermostat and of the initial velocities", 300.0)
    timestep_fs: float = option("0.5 fs suits molecules with hydrogen, 1 to 2 fs heavier elements", 0.5)
    ensemble: Literal["nve", "nvt-langevin", "nvt-bussi"] = option(
        "nve: velocity Verlet; nvt-langevin: every atom in a bath; nvt-bussi: stochastic velocity rescaling, the right "
        "ensemble with nearly undisturbed dynamics",
        "nvt-langevin",
    )
    steps: int | None = option("length of the run in steps (give this or time_ps)", None)
    time_ps: float | None = option("length of the run, rounded to whole steps", None)
    friction_per_ps: float = option("coupling of the Langevin bath", 10.0)
    relaxation_fs: float = option("time constant of the Bussi thermostat", 100.0)
    interval: int = option("steps between two frames; at most this much is lost when the process is killed", 20)
    velocities: Literal["thermal", "structure"] = option(
        "thermal: drawn at temperature_K; structure: those in the structure file", "thermal"
    )
    seed: int = option("of the random numbers of velocities and thermostat", 0)
    resume: bool = option("go on from the last frame in the output folder, if there is one", False)
    overwrite: bool = option("throw away what an earlier run left in the output folder", False)
    device: str = option("auto (the GPU if there is one), cpu or cuda", "auto")
    max_temperature_K: float | None = option(
        "stop when the system is hotter (default: ten times temperature_K, at least 3000)", None
    )
    max_force_eV_A: float = option("stop when a force on an atom is larger", 500.0)

    def __post_init__(self) -> None:
        hints = get_type_hints(MDConfig)
        for name in ("ensemble", "velocities"):
            _choose(name, getattr(self, name), get_args(hints[name]))
        if (self.steps is None) == (self.time_ps is None):
            raise InputError("md: give either steps or time_ps (one of the two) to say how long to run")
        positive = ("timestep_fs", "friction_per_ps", "relaxation_fs", "interval", "max_force_eV_A")
        for name in positive:
            _check(name, getattr(self, name), strictly=True)
        for name in ("temperature_K", "steps", "time_ps"):
            _check(name, getattr(self, name), strictly=False)
        if self.temperature_K == 0 and self.ensemble != "nve":
            raise InputError("md: temperature_K is 0, which no thermostat can hold; use ensemble nve or a temperature")

    @property
    def num_steps(self) -> int:
        """Steps of the whole run, from the start."""
        if self.steps is not None:
            return self.steps
        assert self.time_ps is not None
        return round(self.time_ps * 1e3 / self.timestep_fs)

    @property
    def temperature_limit_K(self) -> float:
        """Above this the run has exploded."""
        return self.max_temperature_K or max(10.0 * self.temperature_K, 3000.0)

    def physics(self) -> dict[str, Any]:
        """The settings a continued run must share with the one before it: not its length, file names, housekeeping."""
        free = ("output", "steps", "time_ps", "resume", "overwrite", "device", "max_temperature_K", "max_force_eV_A")
        return {name: value for name, value in asdict(self).items() if name not in (*free, "model", "structure")}


def _choose(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InputError(f"md: {name} {value!r} is not one of {', '.join(valid)}{nearest(value, valid)}")


def _check(name: str, value: float | None, *, strictly: bool) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < 0 or (strictly and value == 0):
        raise InputError(f"md: {name} is {value}; it must be {'a positive' if strictly else 'a non-negative'} number")
