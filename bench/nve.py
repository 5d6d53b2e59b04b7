"""Energy drift of the inference engine in NVE molecular dynamics, beside the float64 model it was compiled from.

    nequip-fast train demo/water.yaml
    python bench/nve.py demo/out/water/model.safetensors [--json bench/results/nve.json] [--plot bench/results/nve.png]

192 atoms of water, equilibrated with the engine and a Langevin thermostat; from there, with velocities drawn anew for
each run, each contender goes on by itself with velocity Verlet. The drift is the slope of a line through the total
energy. Trajectories part after about a picosecond, as those of chaotic systems do, and the slopes of two runs differ by
what they happen to meet: hence several runs, and the standard error of their mean. The model itself takes ten times as
long and runs less often; the float64 engine, equal to it to rounding and the error of its tables, stands beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from bench.timing import machine
from bench.water import water_box
from nequip_fast.engine import compile
from nequip_fast.integrations.ase import NequIPFastCalculator
from nequip_fast.model import load_model
from nequip_fast.plotting import new_figure, save_figure

_TEMPERATURE, _EVERY = 330.0, 10  # K; steps between samples


def contenders(path: Path) -> dict[str, Any]:
    """Calculators by name, the model itself last."""
    model = load_model(path)
    return {
        "engine, table, float32": compile(model, dtype=torch.float32).calculator(),
        "engine, exact, float32": compile(model, dtype=torch.float32, radial="exact").calculator(),
        "engine, table, float64": compile(model, dtype=torch.float64).calculator(),
        "model, float64": NequIPFastCalculator(model, dtype="float64"),
    }


def equilibrated(calculator: Any, steps: int) -> Atoms:
    """A box of water."""
    atoms = with_velocities(water_box(64), 0)
    atoms.calc = calculator
    atoms.set_constraint(FixCom())
    generator = np.random.default_rng(0)
    thermostat = {"temperature_K": _TEMPERATURE, "friction": 0.02 / units.fs, "fixcm": False, "rng": generator}
    Langevin(atoms, 0.5 * units.fs, **thermostat).run(steps)
    return atoms


def with_velocities(atoms: Atoms, seed: int) -> Atoms:
    """A copy with velocities of the temperature and without total momentum."""
    atoms = atoms.copy()
    atoms.set_constraint(FixCom())
    thermalize_momenta(atoms, temperature_K=_TEMPERATURE, rng=np.random.default_rng(seed))
    atoms.set_constraint()
    return atoms


def run(start: Atoms, calculator: Any, time_step: float, steps: int) -> dict[str, Any]:
    """Total energy, meV/atom, every few steps, mean temperature, drift and fluctuation."""
    atoms = start.copy()
    atoms.calc = calculator
    energies, temperatures = [], []

    def sample() -> None:
        energies.append(1e3 * atoms.get_total_energy() / len(atoms))
        temperatures.append(atoms.get_temperature())

    dynamics = VelocityVerlet(atoms, time_step * units.fs)
    dynamics.attach(sample, interval=_EVERY)
    dynamics.run(steps)
    picoseconds = np.arange(len(energies)) * _EVERY * time_step / 1e3
    energy = np.array(energies) - energies[0]
    slope, offset = np.polyfit(picoseconds, energy, 1)
    return {
        "drift": slope,
        "fluctuation": float((energy - slope * picoseconds - offset).std()),
        "temperature": float(np.mean(temperatures)),
        "picoseconds": picoseconds,
        "energy": energy,
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model.safetensors with types H and O")
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--equilibration", type=float, default=2.0, help="ps")
    parser.add_argument("--time_step", type=float, default=0.5, help="fs")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--model_runs", type=int, default=1, help="of the float64 model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers and the machine to this file")
    parser.add_argument("--plot", type=Path, help="write a figure of the total energies")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    calculators = contenders(arguments.model)
    start = equilibrated(next(iter(calculators.values())), round(1e3 * arguments.equilibration / 0.5))
    steps = round(1e3 * arguments.picoseconds / arguments.time_step)
    rows = {}
    figure, axes = new_figure(2, (9, 5), rows=2)
    for (name, calculator), axis in zip(calculators.items(), axes.flat, strict=True):
        count = arguments.model_runs if name.startswith("model") else arguments.runs
        runs = [run(with_velocities(start, seed), calculator, arguments.time_step, steps) for seed in range(count)]
        for one in runs:
            axis.plot(one["picoseconds"], one["energy"], lw=0.4)
        axis.set(title=name, xlabel="time, ps", ylabel="total energy, meV/atom")
        drifts = np.array([one["drift"] for one in runs])
        rows[name] = row = {
            "drifts_mev_per_atom_ps": drifts.tolist(),
            "mean": drifts.mean(),
            "standard_error": drifts.std(ddof=1) / np.sqrt(count) if count > 1 else None,
            "fluctuation_mev_per_atom": float(np.mean([one["fluctuation"] for one in runs])),
            "temperature": float(np.mean([one["temperature"] for one in runs])),
        }
        error = "" if row["standard_error"] is None else f" ± {1e3 * row['standard_error']:.2f}"
        print(
            f"{name}: drift {1e3 * row['mean']:+.2f}{error} µeV/atom/ps of {count} runs, "
            f"fluctuation {1e3 * row['fluctuation_mev_per_atom']:.1f} µeV/atom, {row['temperature']:.0f} K",
            flush=True,
        )
        if arguments.json:  # after each of them: together they take long
            settings = {
                key: getattr(arguments, key) for key in ("picoseconds", "equilibration", "time_step", "threads")
            }
            result = {"machine": machine("cpu"), "settings": settings, "rows": rows}
            arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if arguments.plot:
            save_figure(figure, arguments.plot)


if __name__ == "__main__":
    main()
