"""What ``nequip_fast.accelerate`` gains: python bench/accelerate.py --json bench/results/accelerate.json

``train``: a step of nequip's presets as nequip-train makes it (energies and forces of a batch, loss, gradients of all
parameters, Adam), eager, as nequip builds the model and with the modifier ``enable_NequipFast``. ``compile_mode``: the
same with nequip's ``compile_mode: compile``, which wants two structures or more, and eager nequip beside them.
``calculator``: a step of SevenNet's ASE calculator with a shipped model, atoms moved a little, with its modules and
with ours. ``compiled``: what ``nequip-compile --mode aotinductor --device cpu --target ase`` makes of a preset, on a
graph that is ready, without and with the modifier. float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nequip_fast
from bench.engine import CASES as SYSTEMS
from bench.engine import Case, random_model, stepper
from bench.peers import nequip as nequip_peer
from bench.peers import sevennet as sevennet_peer
from bench.timing import interleaved, keep_freed_memory, machine
from bench.toluene import toluene
from nequip_fast.data import collate, graph_from_atoms

BATCHES: dict[str, tuple[Case, int]] = {  # name -> (model and structure, structures in a batch)
    "water-S": (SYSTEMS["water-S"], 1),
    "water-M": (SYSTEMS["water-M"], 1),
    "toluene-S": (SYSTEMS["toluene-S"], 5),
    "toluene-M": (Case("M", toluene, ("H", "C"), 4.0, 10.0), 5),
}
CALCULATORS = [name for name in SYSTEMS if "sevennet" in name]
COMPILED = ["water-S", "water-M"]
CASES = [
    *(f"train-{name}" for name in BATCHES),
    *(f"compile_mode-{name}" for name, (_, structures) in BATCHES.items() if structures > 1),
    *(f"compiled-{name}" for name in COMPILED), *(f"calculator-{name}" for name in CALCULATORS),
]  # fmt: skip


def train_calls(name: str, compile_mode: str = "eager") -> dict[str, Callable[[], Any]]:
    """A call of a training step for each; it returns the forces before the step."""
    case, count = BATCHES[name]
    mine = random_model(case)
    theirs = nequip_peer.twin(mine, compile_mode)
    ours = nequip_fast.accelerate(nequip_peer.twin(mine, compile_mode), "train")
    structures = [case.atoms().copy() for _ in range(count)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.03, seed=seed)
    batch = collate([graph_from_atoms(atoms, list(case.type_names), case.r_max) for atoms in structures])
    calls = {"theirs": _train_step(theirs, batch), "accelerated": _train_step(ours, batch)}
    if compile_mode != "eager":
        calls["theirs, eager"] = _train_step(nequip_peer.twin(mine), batch)
    return calls


def _train_step(model: torch.nn.Module, batch: dict[str, Any]) -> Callable[[], Any]:
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-12)  # so that both stay at the same weights

    def step() -> Any:
        optimizer.zero_grad()
        output = model(dict(batch))
        (output["forces"].square().mean() + output["total_energy"].square().mean()).backward()
        optimizer.step()
        return output["forces"].detach()

    return step


def calculator_calls(name: str) -> dict[str, Callable[[], Any]]:
    """A call of a step for each; it returns the forces."""
    case = SYSTEMS[name]
    calls = {}
    for contender in ("theirs", "accelerated"):
        calculator = sevennet_peer.calculator(case.model)
        if contender == "accelerated":
            nequip_fast.accelerate(calculator.model)
        calls[contender] = _forces(stepper(case.atoms().copy())(calculator))
    return calls


def compiled_calls(name: str, folder: Path) -> dict[str, Callable[[], Any]]:
    """A call of each compiled file, made in ``folder``; it returns the forces."""
    case = SYSTEMS[name]
    assert isinstance(case, Case)
    graph = collate([graph_from_atoms(case.atoms(), list(case.type_names), case.r_max)])
    calls = {}
    for contender in ("theirs", "accelerated"):
        model = nequip_peer.twin(random_model(case))
        if contender == "accelerated":
            nequip_fast.accelerate(model, "inference")
        (folder / contender).mkdir()
        calls[contender] = _forces(nequip_peer.aotinductor(model, graph, folder / contender))
    return calls


def _forces(step: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: torch.as_tensor(step()["forces"])


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of each and how many times longer the other takes; the largest difference of a force, relative."""
    kind, _, system = name.partition("-")
    with tempfile.TemporaryDirectory() as folder:
        if kind == "compiled":
            calls = compiled_calls(system, Path(folder))
        else:
            makers = {
                "train": train_calls,
                "compile_mode": lambda system: train_calls(system, "compile"),
                "calculator": calculator_calls,
            }
            calls = makers[kind](system)
        expected, found = calls["theirs"](), calls["accelerated"]()
        timings = interleaved(calls, "cpu", rounds, seconds_a_round=0.3)
    row = {
        "case": name,
        "force_difference": float((found - expected).abs().max() / expected.abs().max()),
        "milliseconds": {contender: 1e3 * timing.median for contender, timing in timings.items()},
        "times_slower": timings["theirs"].ratio_to(timings["accelerated"]),
    }
    if "theirs, eager" in timings:
        row["eager_times_slower"] = timings["theirs, eager"].ratio_to(timings["accelerated"])
    return row


def main() -> None:
    """Parse the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers and the machine to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows = []
    for name in arguments.cases:
        row = measure(name, arguments.rounds)
        rows.append(row)
        theirs, accelerated = row["milliseconds"]["theirs"], row["milliseconds"]["accelerated"]
        ratio = "{:.3g}× [{:.3g}–{:.3g}]".format(*row["times_slower"])
        if "eager_times_slower" in row:
            ratio += ", eager {:.3g}× [{:.3g}–{:.3g}]".format(*row["eager_times_slower"])
        print(f"{name}: {theirs:.1f} ms -> {accelerated:.1f} ms, {ratio}; forces to {row['force_difference']:.0e}")
        if arguments.json:  # after every case: the next may take long
            result = {"machine": machine("cpu"), "rows": rows}
            arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
