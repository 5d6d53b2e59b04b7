"""The inference engine beside the models: energy, forces and stress of a step, neighbour list included.

python bench/engine.py [--cases water-M toluene-S] [--json bench/results/engine.json]

A step is what molecular dynamics asks of an ASE calculator after every atom has moved a little. ``exact`` is the
engine with ``radial="exact"``, ``model`` our model in its calculator. ``nequip`` is the model of the nequip package,
eager, and ``nequip-aoti`` what its ``nequip-compile --mode aotinductor`` makes of it (for ASE it has periodic cells
only), both on a graph that is ready: their neighbour list is not counted. ``sevennet`` is the ASE calculator of the
package sevenn, without which its cases are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from bench.peers import nequip as nequip_peer
from bench.peers import sevennet as sevennet_peer
from bench.silicon import silicon_box
from bench.timing import interleaved, keep_freed_memory, machine
from bench.toluene import toluene
from bench.water import water_box
from nequip_fast.data import collate, graph_from_atoms, keys
from nequip_fast.engine import Potential, compile
from nequip_fast.integrations.ase import NequIPFastCalculator
from nequip_fast.model import build_model

PAPER = {"num_layers": 5, "l_max": 3, "parity": True, "num_features": 64}  # of the NequIP paper, l = 3


@dataclass(frozen=True)
class Case:
    """A NequIP model (preset, or settings) with random weights on a structure."""

    model: str | dict[str, Any]
    atoms: Callable[[], Any]
    type_names: tuple[str, str]
    r_max: float
    neighbours: float


@dataclass(frozen=True)
class SevenNetCase:
    """A model that SevenNet ships (``0`` or ``l3i5``) on a structure."""

    model: str
    atoms: Callable[[], Any]


def _water() -> Any:
    return water_box(64)


def _silicon() -> Any:
    return silicon_box(3)


CASES: dict[str, Case | SevenNetCase] = {
    f"water-{preset}": Case(preset, _water, ("H", "O"), 5.0, 57.0) for preset in ("S", "M", "L", "XL")
}
CASES |= {
    "toluene-S": Case("S", toluene, ("H", "C"), 4.0, 10.0),
    "toluene-paper": Case(PAPER, toluene, ("H", "C"), 4.0, 10.0),
}
CASES |= {
    f"{name}-sevennet-{model}": SevenNetCase(model, atoms)
    for name, atoms in (("water", _water), ("silicon", _silicon))
    for model in sevennet_peer.CHECKPOINTS
}


def compiled(case: Case | SevenNetCase, radial: str = "table") -> Potential:
    """The case's model in the engine, float32."""
    model = sevennet_peer.checkpoint(case.model) if isinstance(case, SevenNetCase) else random_model(case)
    return compile(model, radial=radial)


def stepper(atoms: Any) -> Callable[[Any], Callable[[], Any]]:
    """From a calculator of ASE to a call that moves all atoms a little and calculates."""
    generator = np.random.default_rng(0)

    def of(calculator: Any) -> Callable[[], Any]:
        def call() -> Any:
            atoms.positions += generator.uniform(-1e-3, 1e-3, atoms.positions.shape)
            calculator.calculate(atoms)
            return calculator.results

        return call

    return of


def engine_step(case: Case | SevenNetCase, radial: str = "table") -> tuple[Callable[[], Any], Potential, int, int]:
    """(a call of one step, the potential, its atoms, their edges)"""
    atoms, potential = case.atoms().copy(), compiled(case, radial)
    edges = graph_from_atoms(atoms, potential.type_names, potential.r_max)[keys.EDGE_INDEX].shape[1]
    return stepper(atoms)(potential.calculator()), potential, len(atoms), edges


def contenders(case: Case | SevenNetCase, folder: Path, aoti: bool = True) -> tuple[dict[str, Any], float]:
    """A call of each for one step, and the largest difference of a force, eV/Å; compiled models go to ``folder``."""
    atoms = case.atoms().copy()
    step = stepper(atoms)
    potential = compiled(case)
    calls = {"engine": step(potential.calculator()), "exact": step(compiled(case, "exact").calculator())}
    if isinstance(case, SevenNetCase):
        calls["sevennet"] = step(sevennet_peer.calculator(case.model))
        return calls, potential.report["deviation"]["force"]
    model = random_model(case)
    calls["model"] = step(NequIPFastCalculator(model))
    if not nequip_peer.missing():
        graph = collate([graph_from_atoms(atoms, list(case.type_names), case.r_max)])
        theirs = nequip_peer.twin(model)
        calls["nequip"] = lambda: theirs(dict(graph))
        if aoti and atoms.pbc.any():
            calls["nequip-aoti"] = nequip_peer.aotinductor(nequip_peer.twin(model), graph, folder)
    return calls, potential.report["deviation"]["force"]


def random_model(case: Case) -> Any:
    """The case's model, float32."""
    settings = (
        {"builder": "NequIPGNNModel", **case.model}
        if isinstance(case.model, dict)
        else {"builder": "PresetNequIPGNNModel", "preset": case.model}
    )
    common = {"seed": 0, "model_dtype": "float32", "type_names": list(case.type_names), "r_max": case.r_max}
    return build_model({**settings, **common, "avg_num_neighbors": case.neighbours}).eval()


def measure(name: str, rounds: int, aoti: bool) -> dict[str, Any]:
    """Milliseconds and ratios of one case."""
    with tempfile.TemporaryDirectory() as folder:
        calls, difference = contenders(CASES[name], Path(folder), aoti)
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
    parser.add_argument("--no-aoti", action="store_true", help="leave out nequip-aoti, whose compilation takes minutes")
    parser.add_argument(
        "--json", type=Path, help="write the numbers and the machine to this file; its rows of other cases stay"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows = []
    for name in arguments.cases:
        if isinstance(CASES[name], SevenNetCase) and (reason := sevennet_peer.missing()):
            print(f"{name}: left out, {reason}")
            continue
        row = measure(name, arguments.rounds, not arguments.no_aoti)
        rows.append(row)
        print(f"{name}: {row['atoms']} atoms, forces differ by {row['force_difference']:.0e} eV/Å at most")
        for contender, milliseconds in row["milliseconds"].items():
            slower = "{:.3g}× [{:.3g}–{:.3g}]".format(*row["times_slower"][contender])
            print(f"  {contender:11s} {milliseconds:9.3f} ms  {slower}")
        if arguments.json:  # after every case: the next may take long
            result = {"machine": machine("cpu"), "rows": [*_others(arguments.json, rows), *rows]}
            arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _others(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of cases in the file that have not been measured again."""
    measured = {row["case"] for row in rows}
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return [row for row in kept if row["case"] not in measured]


if __name__ == "__main__":
    main()
