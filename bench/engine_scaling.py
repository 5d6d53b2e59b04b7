"""The inference engine on boxes of water of growing size: time and memory per atom, and what a second thread brings.

    python bench/engine_scaling.py [--preset M] [--molecules 333 3333 33333] [--json bench/results/engine-scaling.json]

Each size runs in a process of its own. Memory is the rise of its peak (Linux: VmHWM) over what was resident once
model and structure were there: neighbour list, its construction, the engine's rows, the results.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from bench.engine import CASES, random_model
from bench.memory import start_peak, status
from bench.timing import machine
from bench.water import water_box
from nequip_fast.engine import Potential, compile
from nequip_fast.integrations.ase import PotentialCalculator


def potential(preset: str, radial: str) -> Potential:
    """A preset with random weights, float32."""
    return compile(random_model(CASES[f"water-{preset}"]), radial=radial, verify=False)


def measure_here(preset: str, radial: str, molecules: int, threads: int, steps: int) -> dict[str, float]:
    """Seconds a step after the first, seconds of the first, and bytes, in this process."""
    torch.set_num_threads(threads)
    calculator = potential(preset, radial).calculator()
    calculator.calculate(water_box(1).copy())  # code and constants are loaded
    atoms = water_box(molecules).copy()
    calculator.neighbours = PotentialCalculator(calculator.potential).neighbours
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    start_peak()
    before = status("VmRSS")
    generator = np.random.default_rng(0)
    seconds = []
    for _ in range(steps + 1):
        atoms.positions += generator.uniform(-1e-3, 1e-3, atoms.positions.shape)
        start = time.perf_counter()
        calculator.calculate(atoms)
        seconds.append(time.perf_counter() - start)
    return {
        "molecules": molecules,
        "atoms": len(atoms),
        "threads": threads,
        "first_seconds": seconds[0],
        "microseconds_an_atom": 1e6 * median(seconds[1:]) / len(atoms),
        "bytes_an_atom": (status("VmHWM") - before) / len(atoms),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="M", choices=["S", "M", "L", "XL"])
    parser.add_argument("--radial", default="table", choices=["table", "exact"])
    parser.add_argument("--molecules", nargs="+", type=int, default=[64, 334, 1000, 3334, 10000, 33334])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the numbers and the machine to this file")
    parser.add_argument("--only", action="store_true", help="measure the first size in this process and print JSON")
    arguments = parser.parse_args()
    common = ["--preset", arguments.preset, "--radial", arguments.radial, "--steps", str(arguments.steps)]
    if arguments.only:
        found = measure_here(
            arguments.preset, arguments.radial, arguments.molecules[0], arguments.threads[0], arguments.steps
        )
        print(json.dumps(found))
        return
    rows: list[dict[str, Any]] = []
    print(f"{'atoms':>8} {'threads':>7} {'µs/atom':>8} {'first, s':>9} {'kB/atom':>8}")
    for molecules in arguments.molecules:
        for threads in arguments.threads:
            command = [
                sys.executable,
                __file__,
                *common,
                "--only",
                "--molecules",
                str(molecules),
                "--threads",
                str(threads),
            ]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            row = rows[-1]
            print(
                f"{row['atoms']:8d} {threads:7d} {row['microseconds_an_atom']:8.1f} {row['first_seconds']:9.2f} "
                f"{row['bytes_an_atom'] / 1e3:8.1f}"
            )
    if arguments.json:
        result = {"machine": machine("cpu"), "preset": arguments.preset, "radial": arguments.radial, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
