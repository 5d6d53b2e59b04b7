"""The inference engine beside the models: energy, forces and stress of a step, neighbour list included.

python bench/engine.py [--presets S M L] [--molecules 64] [--json bench/results/engine.json]

A step is what molecular dynamics asks of an ASE calculator after every atom has moved a little. ``nequip`` is the model
of the nequip package, eager, on a graph that is ready: its neighbour list is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from bench.peers import nequip as nequip_peer
from bench.timing import interleaved, keep_freed_memory, machine
from bench.water import water_box, water_graph
from nequip_fast.engine import compile
from nequip_fast.integrations.ase import NequIPFastCalculator
from nequip_fast.model import PresetNequIPGNNModel

TYPES, R_MAX = ["H", "O"], 5.0


def contenders(preset: str, molecules: int) -> tuple[dict[str, Any], float]:
    """A call of each for one step, and the largest difference of a force, eV/Å."""
    model = PresetNequIPGNNModel(
        preset, seed=0, model_dtype="float32", type_names=TYPES, r_max=R_MAX, avg_num_neighbors=57.0
    ).eval()
    atoms = water_box(molecules).copy()
    generator = np.random.default_rng(0)
    potential = compile(model)
    calculators = {"engine": potential.calculator(), "model": NequIPFastCalculator(model)}

    def step(calculator: Any) -> Any:
        def call() -> Any:
            atoms.positions += generator.uniform(-1e-3, 1e-3, atoms.positions.shape)
            calculator.calculate(atoms)
            return calculator.results

        return call

    calls = {name: step(calculator) for name, calculator in calculators.items()}
    if not nequip_peer.missing():
        theirs, graph = nequip_peer.twin(model), water_graph(molecules, R_MAX)
        calls["nequip"] = lambda: theirs(dict(graph))
    return calls, potential.report["deviation"]["force"]


def measure(preset: str, molecules: int, rounds: int) -> dict[str, Any]:
    """Milliseconds and ratios of one preset."""
    calls, difference = contenders(preset, molecules)
    for call in calls.values():
        call()
    timings = interleaved(calls, "cpu", rounds, seconds_a_round=0.3)
    return {
        "preset": preset,
        "atoms": 3 * molecules,
        "force_difference": difference,
        "milliseconds": {name: 1e3 * timing.median for name, timing in timings.items()},
        "times_slower": {name: timing.ratio_to(timings["engine"]) for name, timing in timings.items()},
    }


def main() -> None:
    """Parse the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["S", "M", "L"], choices=["S", "M", "L", "XL"])
    parser.add_argument("--molecules", type=int, default=64, help="water molecules in the box")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers and the machine to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows = []
    for preset in arguments.presets:
        rows.append(measure(preset, arguments.molecules, arguments.rounds))
        row = rows[-1]
        print(f"{preset}: {row['atoms']} atoms, forces differ by {row['force_difference']:.0e} eV/Å at most")
        for name, milliseconds in row["milliseconds"].items():
            print(f"  {name:8s} {milliseconds:9.2f} ms  {'{:.3g}× [{:.3g}–{:.3g}]'.format(*row['times_slower'][name])}")
    if arguments.json:
        result = {"machine": machine("cpu"), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
