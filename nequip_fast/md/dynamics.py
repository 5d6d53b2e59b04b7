"""Run molecular dynamics: start or resume, step, write, stop when something is wrong."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nequip_fast.errors import InputError, require
from nequip_fast.files import sha256
from nequip_fast.md.config import MDConfig
from nequip_fast.md.integrators import build_integrator, degrees_of_freedom, thermal_velocities
from nequip_fast.md.observables import EnergyDrift, energy_drift
from nequip_fast.md.trajectory import RunFiles, read_thermo

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from rich.console import Console


class SimulationExploded(InputError):
    """Temperature or forces left the physical range; the trajectory keeps every good frame."""


@dataclass(frozen=True)
class MDResult:
    """What :func:`simulate` did.

    Attributes:
        trajectory: frames with positions, momenta, energy and forces (ASE ``.traj``).
        thermo: CSV log, one line per frame.
        num_atoms: in the simulated structure.
        num_steps: length of the whole run in steps, earlier parts included.
        time_ps: the same in ps.
        temperature_K: mean over the log.
        drift: of the total energy, for NVE runs of three frames or more.
        new_steps: steps made by this call.
        steps_per_second: speed of this call; zero when nothing was left to do.
        ns_per_day: the same as simulated time.
    """

    trajectory: Path
    thermo: Path
    num_atoms: int
    num_steps: int
    time_ps: float
    temperature_K: float
    drift: EnergyDrift | None
    new_steps: int
    steps_per_second: float
    ns_per_day: float


def simulate(
    config: MDConfig, *, calculator: Calculator | None = None, progress: bool = True, console: Console | None = None
) -> MDResult:
    """Carry out ``config``, from the start or from the last frame in its output directory.

    A resumed run is the uninterrupted one bit for bit, on the same machine with the same number of threads. On Ctrl-C
    the step at hand is finished and ``KeyboardInterrupt`` is raised; the last frame is where to resume.

    Args:
        calculator: use this ASE calculator instead of ``config.model``; a resumed run is exact if its forces depend on
            the positions alone.

    Raises:
        InputError: a setting or file is wrong, or the output holds a run that these settings do not continue.
        SimulationExploded: see there.
    """
    files = RunFiles(config.output)
    settings = config.physics() | _fingerprints(config, calculator)
    resuming = files.exist() and config.resume
    if files.exist() and not (config.resume or config.overwrite):
        raise InputError(f"{files.trajectory} exists already; choose resume, overwrite or another output directory")
    if resuming:
        files.check_settings(settings)
        atoms = files.last()
    else:
        atoms = _read_structure(config)
    rng = np.random.default_rng(config.seed)
    start = int(atoms.info["step"]) if resuming else 0
    if resuming:
        rng.bit_generator.state = json.loads(atoms.info["rng"])
        files.trim_thermo(start)
    elif config.velocities == "thermal":
        thermal_velocities(atoms, config, rng)
    if start < config.num_steps or not resuming:
        atoms.calc = calculator if calculator is not None else _calculator(config)
    dof = degrees_of_freedom(atoms, config)
    integrator = build_integrator(config, dof, rng)
    if not resuming:
        _check(atoms, dof, config, 0, files)
        files.start(settings, _frame(atoms, rng, 0, config), _thermo(atoms, dof, 0, config))

    began = time.perf_counter()
    bar = _progress(config, start, console) if progress else nullcontext(lambda step: None)
    with _deferred_interrupt() as interrupted, bar as report:
        for step in range(start + 1, config.num_steps + 1):
            integrator.step(atoms)
            _check(atoms, dof, config, step, files)
            if step % config.interval == 0 or step == config.num_steps:
                files.append(_frame(atoms, rng, step, config), _thermo(atoms, dof, step, config))
            report(step)
            if interrupted.is_set():
                raise KeyboardInterrupt
    return _result(config, files, start, len(atoms), time.perf_counter() - began)


def _result(config: MDConfig, files: RunFiles, start: int, num_atoms: int, seconds: float) -> MDResult:
    log = read_thermo(files.thermo)
    drift = None
    if config.ensemble == "nve" and len(log["step"]) >= 3:
        drift = energy_drift(log["time_ps"], log["total_eV"], log["kinetic_eV"], num_atoms)
    new_steps = max(config.num_steps - start, 0)
    speed = new_steps / seconds if new_steps else 0.0
    return MDResult(
        trajectory=files.trajectory,
        thermo=files.thermo,
        num_atoms=num_atoms,
        num_steps=int(log["step"][-1]),
        time_ps=float(log["time_ps"][-1]),
        temperature_K=float(log["temperature_K"].mean()),
        drift=drift,
        new_steps=new_steps,
        steps_per_second=speed,
        ns_per_day=_ns_per_day(speed, config),
    )


def _frame(atoms: Atoms, rng: np.random.Generator, step: int, config: MDConfig) -> Atoms:
    """A copy that holds all a restart needs, with the energy and forces already known."""
    single_point = require("ase.calculators.singlepoint", "md").SinglePointCalculator
    frame = atoms.copy()
    frame.info = {"step": step, "time_fs": step * config.timestep_fs, "rng": json.dumps(rng.bit_generator.state)}
    frame.calc = single_point(
        frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces(apply_constraint=False)
    )
    return frame


def _thermo(atoms: Atoms, dof: int, step: int, config: MDConfig) -> dict[str, float]:
    kinetic, potential = float(atoms.get_kinetic_energy()), float(atoms.get_potential_energy())
    return {
        "step": step,
        "time_ps": step * config.timestep_fs * 1e-3,
        "temperature_K": _temperature(kinetic, dof),
        "potential_eV": potential,
        "kinetic_eV": kinetic,
        "total_eV": potential + kinetic,
    }


def _temperature(kinetic: float, dof: int) -> float:
    return 2.0 * kinetic / (dof * require("ase.units", "md").kB)


def _check(atoms: Atoms, dof: int, config: MDConfig, step: int, files: RunFiles) -> None:
    """Raise :class:`SimulationExploded` when a force or the temperature is beyond reason or not a number."""
    forces = np.abs(atoms.get_forces(apply_constraint=False))
    temperature = _temperature(atoms.get_kinetic_energy(), dof)
    worst = float(forces.max(initial=0.0))
    if worst <= config.max_force_eV_A and temperature <= config.temperature_limit_K:
        return  # comparisons with NaN are false and fall through
    if not worst <= config.max_force_eV_A:
        atom = int(np.argmax(np.nan_to_num(forces, nan=np.inf).max(axis=1)))
        what = f"the force on atom {atom} ({atoms.symbols[atom]}) is {worst:.3g} eV/Å"
    else:
        what = f"the temperature is {temperature:.3g} K"
    if step == 0:
        raise SimulationExploded(
            f"{config.structure}: {what} before the first step; relax the structure, check its units, or train the "
            "model on structures like it"
        )
    raise SimulationExploded(
        f"the simulation exploded at step {step} ({step * config.timestep_fs:g} fs): {what}; the last good frame is in "
        f"{files.trajectory}; try a shorter timestep_fs than {config.timestep_fs:g} or train on structures like it"
    )


def _read_structure(config: MDConfig) -> Atoms:
    io = require("ase.io", "md")
    path = Path(config.structure)
    try:
        structures = io.read(path, index=":")
    except Exception as error:  # each of ASE's readers fails in its own way
        raise InputError(f"{path}: not a structure file that ASE can read: {error!r}") from None
    try:
        atoms = structures[config.index]
    except IndexError:
        raise InputError(f"{path}: has {len(structures)} structures, so none of index {config.index}") from None
    if len(atoms) == 0:
        raise InputError(f"{path}: structure {config.index} holds no atoms")
    if not np.isfinite(atoms.positions).all():
        raise InputError(f"{path}: structure {config.index} has positions that are not finite numbers")
    if config.velocities == "structure" and not atoms.has("momenta"):
        raise InputError(f"{path}: structure {config.index} has no velocities; use velocities thermal")
    atoms.calc = None
    return atoms


def _calculator(config: MDConfig) -> Calculator:
    from nequip_fast.integrations.ase import calculator_of

    return calculator_of(config.model, config.device)


def _fingerprints(config: MDConfig, calculator: Calculator | None) -> dict[str, str]:
    """The contents, not the names, of the files a continued run must share with the one before it."""
    model = type(calculator).__name__ if calculator is not None else _sha256("model", config.model)
    return {"model": model, "structure": _sha256("structure", config.structure)}


def _sha256(kind: str, path: str) -> str:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such {kind} file")
    return sha256(path)


def _ns_per_day(steps_per_second: float, config: MDConfig) -> float:
    return steps_per_second * config.timestep_fs * 1e-6 * 86400.0


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C into a flag that is looked at between steps; a second Ctrl-C acts at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread may set handlers
        return

    def note(number: int, frame: Any) -> None:
        requested.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, note)
    try:
        yield requested
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _progress(config: MDConfig, start: int, console: Console | None) -> Iterator[Any]:
    """Progress bar; yields a function to call with each step number."""
    rich = require("rich.progress", "md")
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        rich.TextColumn("{task.fields[speed]}"),
        rich.TimeRemainingColumn(),
    )
    began = time.perf_counter()
    with rich.Progress(*columns, console=console) as bar:
        task = bar.add_task(config.ensemble.upper(), total=config.num_steps, completed=start, speed="")

        def report(step: int) -> None:
            speed = (step - start) / (time.perf_counter() - began)
            bar.update(task, completed=step, speed=f"{speed:.0f} steps/s, {_ns_per_day(speed, config):.3g} ns/day")

        yield report
