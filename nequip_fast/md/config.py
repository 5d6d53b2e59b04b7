"""Everything that defines a molecular dynamics run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from nequip_fast.errors import InputError, nearest

Ensemble = Literal["nve", "nvt-langevin", "nvt-bussi"]
Velocities = Literal["thermal", "structure"]


@dataclass(frozen=True)
class MDConfig:
    """Settings of one run; :func:`nequip_fast.md.simulate` carries it out.

    Attributes:
        model: model file (``model.safetensors``).
        structure: any structure file ASE reads.
        output: directory for ``trajectory.traj``, ``thermo.csv``, ``md.json`` and plots.
        index: which structure of the file; -1 is the last.
        temperature_K: target of the thermostat and of the initial velocities.
        timestep_fs: integration step; 0.5 fs suits molecules with hydrogen, 1–2 fs heavier elements.
        ensemble: ``nve`` (velocity Verlet), ``nvt-langevin`` (every atom in a bath) or ``nvt-bussi`` (stochastic
            velocity rescaling: right ensemble, nearly undisturbed dynamics).
        steps: number of steps; or
        time_ps: length of the run, rounded to whole steps.
        friction_per_ps: coupling of the Langevin bath.
        relaxation_fs: time constant of the Bussi thermostat.
        interval: steps between two frames; at most this much is lost when the process is killed.
        velocities: ``thermal`` draws them at ``temperature_K``, ``structure`` takes those in the structure file.
        seed: of the random numbers (velocities, thermostat).
        resume: go on from the last frame in ``output`` if there is one.
        overwrite: throw away what an earlier run left in ``output``.
        device: ``auto``, ``cpu`` or ``cuda``.
        max_temperature_K: stop when the system is hotter; by default ten times the target (at least 3,000 K).
        max_force_eV_A: stop when a force is larger.
    """

    model: str
    structure: str
    output: str = "md"
    index: int = -1
    temperature_K: float = 300.0
    timestep_fs: float = 0.5
    ensemble: Ensemble = "nvt-langevin"
    steps: int | None = None
    time_ps: float | None = None
    friction_per_ps: float = 10.0
    relaxation_fs: float = 100.0
    interval: int = 20
    velocities: Velocities = "thermal"
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    max_temperature_K: float | None = None
    max_force_eV_A: float = 500.0

    def __post_init__(self) -> None:
        _choose("ensemble", self.ensemble, get_args(Ensemble))
        _choose("velocities", self.velocities, get_args(Velocities))
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
        """The settings a continued run must share with the one before it: all but its length and housekeeping."""
        free = {"output", "steps", "time_ps", "resume", "overwrite", "device", "max_temperature_K", "max_force_eV_A"}
        return {name: value for name, value in asdict(self).items() if name not in free}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MDConfig:
        """Build from plain values; an unknown key is an :class:`InputError` that suggests the nearest."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(f"md: unknown setting {key!r}{nearest(key, known)}")
        return cls(**values)


def _choose(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InputError(f"md: {name} {value!r} is not one of {', '.join(valid)}{nearest(value, valid)}")


def _check(name: str, value: float | None, *, strictly: bool) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < 0 or (strictly and value == 0):
        raise InputError(f"md: {name} is {value}; it must be {'a positive' if strictly else 'a non-negative'} number")
