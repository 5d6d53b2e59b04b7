"""Block sizes of Triton's kernels for the named problems, measured on the GPU at hand, or compiled for one that is not.

    python bench/tune.py --seconds 300                    # measure, keep for this user
    python bench/tune.py --seconds 300 --ship             # … and in nequip_fast/kernels/tiles.json, for everybody
    python bench/tune.py --compile-for A100 H100 --ship   # no GPU: where the rule of thumb spills, what spills least

Float32; forward, gradients and second derivatives of each case.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import nequip_fast
from bench.calls import derivatives
from bench.kernel_resources import Launch, launches, resources_apart
from bench.peers import ours
from bench.problems import CASES, ConvCase
from nequip_fast.files import write_text
from nequip_fast.kernels import tuning

DEFAULT = ["conv-S", "conv-M", "conv-L", "conv-l3i5", "conv-SevenNet-0", "conv-mace-large", "conv-32-l2-parity"]
ARCHITECTURES = {"A100": 80, "H100": 90, "H200": 90, "B200": 100}
_ABORTS = 10**6
_TOLERATED = 64  # bytes of a lane that may be spilled before another tile is looked for


def measured(cases: list[str], seconds: float) -> dict[str, Any]:
    """Tuned on this GPU, the time shared evenly."""
    found: dict[str, Any] = {}
    for name in cases:
        case = CASES[name]
        assert isinstance(case, ConvCase)
        *leaves, cotangent = (t.detach().cuda().requires_grad_(t.requires_grad) for t in case.tensors(torch.float32))
        calls = derivatives(ours.conv(case, torch.float32, "cuda"), leaves, cotangent)

        def run(calls: dict[str, Any] = calls) -> None:
            for call in calls.values():
                call.run()

        for problem, entry in nequip_fast.tune(run, seconds / len(cases)).items():
            gain = entry["microseconds_before"] / entry["microseconds"]
            print(f"{name}: {entry['kernel']} {gain:.2f}x with {entry['tile']}", flush=True)
            found[problem] = entry
    return found


def compiled(cases: list[str], architecture: int) -> dict[str, Any]:
    """For kernels that spill with the rule of thumb, the tile that spills least."""
    found: dict[str, Any] = {}
    for name in cases:
        for launch in launches(CASES[name]):
            spilled = _spilled(launch, architecture)
            if spilled <= _TOLERATED:
                continue
            best, least = launch.tiles[0], spilled
            for tile in launch.tiles[1:]:
                bytes_ = _spilled(replace(launch, tiles=[tile]), architecture)
                if bytes_ < least:
                    best, least = tile, bytes_
                if least == 0:
                    break
            print(f"{name}, {launch.what}, {launch.kernel.__name__}: {spilled} -> {least} bytes spilled with {best}")
            if least < spilled:
                found[launch.problem] = {"kernel": launch.kernel.__name__, "tile": best, "spilled_bytes": least,
                                  "spilled_bytes_before": spilled}  # fmt: skip
    return found


def _spilled(launch: Launch, architecture: int) -> int:
    """Bytes a lane; very many where the compiler aborts."""
    spilled = resources_apart(launch, architecture)["spilled_bytes"]
    return spilled if isinstance(spilled, int) else _ABORTS


def main() -> None:
    """Tune, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=DEFAULT, metavar="CASE", help=f"default: {', '.join(DEFAULT)}")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--compile-for", nargs="+", choices=ARCHITECTURES, metavar="GPU", help=", ".join(ARCHITECTURES))
    parser.add_argument("--ship", action="store_true", help=f"write to {tuning.SHIPPED.name} of the package")
    arguments = parser.parse_args()
    table = json.loads(tuning.SHIPPED.read_text()) if tuning.SHIPPED.is_file() else {}
    if arguments.compile_for:
        by_architecture = {a: compiled(arguments.cases, a) for a in {ARCHITECTURES[g] for g in arguments.compile_for}}
        for gpu in arguments.compile_for:
            table[gpu] = by_architecture[ARCHITECTURES[gpu]] | table.get(gpu, {})  # what was measured stands
    else:
        found = measured(arguments.cases, arguments.seconds)
        table.setdefault(tuning._device(torch.empty(0, device="cuda")), {}).update(found)
    if arguments.ship:
        write_text(tuning.SHIPPED, json.dumps(table, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
