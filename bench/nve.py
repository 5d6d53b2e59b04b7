"""Energy drift of the inference engine in NVE molecular dynamics, beside the float64 model it was compiled from.

    nequip-fast train demo/water.yaml
    python bench/nve.py demo/out/water/model.safetensors [--json bench/results/nve.json] [--plot bench/results/nve.png]

192 atoms of water, equilibrated with the engine and a Langevin thermostat; from there each contender runs by itself
with velocity Verlet. The trajectories part after about a picosecond, as those of chaotic systems do: compared are the
slopes of a line through the total energy, with the standard error from ten blocks, and the fluctuation about it.
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

_TEMPERATURE, _EVERY, _BLOCKS = 330.0, 10, 10  # K; steps between samples


def contenders(path: Path) -> dict[str, Any]:
    """Calculators by name."""
    model = load_model(path)
    return {
        "engine, table, float32": compile(model, dtype=torch.float32).calculator(),
        "engine, exact, float32": compile(model, dtype=torch.float32, radial="exact").calculator(),
        "model, float64": NequIPFastCalculator(model, dtype="float64"),
    }


def equilibrated(calculator: Any, steps: int) -> Atoms:
    """A box of water with velocities."""
    atoms = water_box(64).copy()
    generator = np.random.default_rng(0)
    atoms.set_constraint(FixCom())
    thermalize_momenta(atoms, temperature_K=_TEMPERATURE, rng=generator)
    atoms.calc = calculator
    thermostat = {"temperature_K": _TEMPERATURE, "friction": 0.02 / units.fs, "fixcm": False, "rng": generator}
    Langevin(atoms, 0.5 * units.fs, **thermostat).run(steps)
    atoms.set_constraint()
    return atoms


def run(start: Atoms, calculator: Any, time_step: float, steps: int) -> dict[str, Any]:
    """Total energy per atom, eV, every few steps, temperature, and what follows from them."""
    atoms = start.copy()
    atoms.calc = calculator
    energies, temperatures = [], []

    def sample() -> None:
        energies.append(atoms.get_total_energy() / len(atoms))
        temperatures.append(atoms.get_temperature())

    dynamics = VelocityVerlet(atoms, time_step * units.fs)
    dynamics.attach(sample, interval=_EVERY)
    dynamics.run(steps)
    picoseconds = np.arange(len(energies)) * _EVERY * time_step / 1e3
    energy = 1e3 * (np.array(energies) - energies[0])
    slope, offset = np.polyfit(picoseconds, energy, 1)
    rest = energy - slope * picoseconds - offset
    blocks = np.array([block.mean() for block in np.array_split(rest, _BLOCKS)])
    # of a slope through _BLOCKS independent means over the whole time
    error = blocks.std(ddof=2) * np.sqrt(12 / _BLOCKS) / picoseconds[-1]
    return {
        "drift_mev_per_atom_ps": slope,
        "drift_error": error,
        "fluctuation_mev_per_atom": rest.std(),
        "temperature": float(np.mean(temperatures)),
        "picoseconds": picoseconds.tolist(),
        "energy_mev_per_atom": energy.round(6).tolist(),
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model.safetensors with types H and O")
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--equilibration", type=float, default=2.0, help="ps")
    parser.add_argument("--time_step", type=float, default=0.5, help="fs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers and the machine to this file")
    parser.add_argument("--plot", type=Path, help="write a figure of the total energies")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    calculators = contenders(arguments.model)
    start = equilibrated(next(iter(calculators.values())), round(1e3 * arguments.equilibration / 0.5))
    rows = {}
    for name, calculator in calculators.items():
        steps = round(1e3 * arguments.picoseconds / arguments.time_step)
        rows[name] = row = run(start, calculator, arguments.time_step, steps)
        print(
            f"{name}: drift {1e3 * row['drift_mev_per_atom_ps']:+.2f} ± {1e3 * row['drift_error']:.2f} µeV/atom/ps, "
            f"fluctuation {1e3 * row['fluctuation_mev_per_atom']:.1f} µeV/atom, {row['temperature']:.0f} K",
            flush=True,
        )
    if arguments.plot:
        figure, (axis,) = new_figure(1, (7, 3.5))
        for name, row in rows.items():
            axis.plot(row["picoseconds"], row["energy_mev_per_atom"], lw=0.6, label=name)
        axis.set(xlabel="time, ps", ylabel="total energy, meV/atom")
        axis.legend(frameon=False)
        save_figure(figure, arguments.plot)
    if arguments.json:
        for row in rows.values():  # the figure has them
            del row["picoseconds"], row["energy_mev_per_atom"]
        settings = {key: getattr(arguments, key) for key in ("picoseconds", "equilibration", "time_step", "threads")}
        result = {"machine": machine("cpu"), "settings": settings, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
