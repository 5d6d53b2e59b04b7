"""The inference engine on a GPU: time and memory of a step, by model and number of atoms.

    python bench/engine_gpu.py [--cases L-4096 M-32768] [--json engine-gpu.json] [--profile]

A step is energy, forces and dE/dstrain in float32 from positions on the host to forces there, with pairs that are kept:
what molecular dynamics does between two searches for neighbours, whose time is not in it. ``step`` is all of that,
``replay`` the work on the GPU alone. For preset L with 46 neighbours an atom NequIP's authors publish 6.4, 16.6, 86 and
606 ms with 64, 512, 4,096 and 32,768 atoms (AOTInductor and OpenEquivariance on an H100, through ASE, neighbours and
stress included). With ``--device cpu`` the same code runs there, for rehearsals.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.crystal import crystal
from bench.timing import Timing, interleaved, machine
from nequip_fast.engine import compile
from nequip_fast.engine.on_device import DeviceEngine
from nequip_fast.files import write_text
from nequip_fast.model import build_model

_CUTOFF, _NEIGHBOURS, _TYPES = 5.0, 46.0, ["H", "O"]
COPIES = {64: 1, 512: 2, 4_096: 4, 32_768: 8, 262_144: 16, 2_097_152: 32}
DEFAULT = ["S-64", "M-64", "M-512", "M-4096", "M-32768", "M-262144", "L-64", "L-512", "L-4096", "L-32768", "M-2097152"]
PUBLISHED = {"L-64": 6.4, "L-512": 16.6, "L-4096": 86.0, "L-32768": 606.0}  # ms


def engine_of(model: str, device: torch.device) -> DeviceEngine:
    """The engine of a model with random weights, float32."""
    settings = {
        "builder": "PresetNequIPGNNModel", "preset": model, "seed": 0, "model_dtype": "float32", "type_names": _TYPES,
        "r_max": _CUTOFF, "avg_num_neighbors": _NEIGHBOURS,
    }  # fmt: skip
    potential = compile(build_model(settings).eval(), verify=False)
    return DeviceEngine(potential.program, torch.float32, device)


def measure(name: str, device: torch.device, profile: bool) -> dict[str, Any]:
    """Of one case."""
    model, atoms = name.split("-")
    engine, given = engine_of(model, device), crystal(COPIES[int(atoms)], len(_TYPES), _CUTOFF, _NEIGHBOURS)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    engine.evaluate(*given, kept=name)
    first = time.perf_counter() - started
    calls: dict[str, Callable[[], Any]] = {"step": lambda: engine.evaluate(*given, kept=name)}
    if device.type == "cuda":
        captured = engine._step.captured
        assert captured is not None
        calls["replay"] = captured.replay
    timings = interleaved(calls, device.type, rounds=9, seconds_a_round=0.1)
    row: dict[str, Any] = {"atoms": int(atoms), "edges": len(given.pairs[1]), "first_step_s": round(first, 2)}
    row |= {f"{what}_ms": _milliseconds(timing) for what, timing in timings.items()}
    row["atom_steps_per_s"] = round(int(atoms) / timings["step"].median)
    if device.type == "cuda":
        row["peak_bytes_per_atom"] = round(torch.cuda.max_memory_allocated(device) / int(atoms))
        if profile:
            row["kernels_us"] = _kernels(captured.replay)
    if name in PUBLISHED:
        row["published_over_step"] = round(PUBLISHED[name] / (1e3 * timings["step"].median), 2)
    return row


def _milliseconds(timing: Timing) -> list[float]:
    """Median, lowest and highest round."""
    return [float(f"{1e3 * value:.4g}") for value in (timing.median, min(timing.seconds), max(timing.seconds))]


def _kernels(call: Callable[[], Any]) -> dict[str, list[float]]:
    """Microseconds and number of launches of the kernels that take longest, by name."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    events = sorted(profiler.key_averages(), key=lambda event: -event.device_time_total)[:25]
    return {event.key[:80]: [round(event.device_time_total, 1), event.count] for event in events}


def main() -> None:
    """Measure, print, write after each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=DEFAULT, metavar="MODEL-ATOMS")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true", help="with the time of each kernel")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rows: dict[str, Any] = {}
    for name in arguments.cases:
        try:
            rows[name] = measure(name, device, arguments.profile)
        except torch.OutOfMemoryError as error:
            rows[name] = {"failed": str(error).splitlines()[0]}
        print(name, json.dumps(rows[name]), flush=True)
        if arguments.json:
            found = {"machine": machine(arguments.device), "cases": rows}
            write_text(arguments.json, json.dumps(found, indent=1) + "\n")
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
