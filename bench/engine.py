"""The inference engine beside the models: energy, forces and stress of a step, neighbour list included.

python bench/engine.py [--cases water-M toluene-S] [--json bench/results/engine.json]

A step is what molecular dynamics asks of an ASE calculator after every atom has moved a little. ``nequip`` is the model
of the nequip package, eager, on a graph that is ready: its neighbour list is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from bench.peers import nequip as nequip_peer
from bench.timing import interleaved, keep_freed_memory, machine
from bench.toluene import toluene
from bench.water import water_box
from nequip_fast.data import collate, graph_from_atoms
from nequip_fast.engine import compile
from nequip_fast.integrations.ase import NequIPFastCalculator
from nequip_fast.model import build_model

PAPER = {"num_layers": 5, "l_max": 3, "parity": True, "num_features": 64}  # of the NequIP paper, l = 3


@dataclass(frozen=True)
class Case:
    """A model (preset, or settings) on a structure."""

    model: str | dict[str, Any]
    atoms: Callable[[], Any]
    type_names: tuple[str, str]
    r_max: float
    neighbours: float


def _box() -> Any:
    return water_box(64)


CASES = {f"water-{preset}": Case(preset, _box, ("H", "O"), 5.0, 57.0) for preset in ("S", "M", "L", "XL")}
CASES |= {
    "toluene-S": Case("S", toluene, ("H", "C"), 4.0, 10.0),
    "toluene-paper": Case(PAPER, toluene, ("H", "C"), 4.0, 10.0),
}


def contenders(case: Case) -> tuple[dict[str, Any], float]:
    """A call of each for one step, and the largest difference of a force, eV/Å."""
    settings = {"builder": "NequIPGNNModel", **case.model} if isinstance(case.model, dict) else {
        "builder": "PresetNequIPGNNModel", "preset": case.model
    }  # fmt: skip
    names = list(case.type_names)
    common = {"seed": 0, "model_dtype": "float32", "type_names": names, "r_max": case.r_max}
    model = build_model({**settings, **common, "avg_num_neighbors": case.neighbours}).eval()
    atoms = case.atoms().copy()
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
        theirs, graph = nequip_peer.twin(model), collate([graph_from_atoms(atoms, names, case.r_max)])
        calls["nequip"] = lambda: theirs(dict(graph))
    return calls, potential.report["deviation"]["force"]


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Milliseconds and ratios of one case."""
    calls, difference = contenders(CASES[name])
    for call in calls.values():
        call()
    timings = interleaved(calls, "cpu", rounds, seconds_a_round=0.3)
    return {
        "case": name,
        "atoms": len(CASES[name].atoms()),
        "force_difference": difference,
        "milliseconds": {name: 1e3 * timing.median for name, timing in timings.items()},
        "times_slower": {name: timing.ratio_to(timings["engine"]) for name, timing in timings.items()},
    }


def main() -> None:
    """Parse the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers and the machine to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows = []
    for name in arguments.cases:
        rows.append(measure(name, arguments.rounds))
        row = rows[-1]
        print(f"{name}: {row['atoms']} atoms, forces differ by {row['force_difference']:.0e} eV/Å at most")
        for contender, milliseconds in row["milliseconds"].items():
            slower = "{:.3g}× [{:.3g}–{:.3g}]".format(*row["times_slower"][contender])
            print(f"  {contender:8s} {milliseconds:9.3f} ms  {slower}")
    if arguments.json:
        result = {"machine": machine("cpu"), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
