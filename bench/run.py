"""Measure nequip_fast against its peers, side by side in one run.

    python bench/run.py                                # every case on this machine
    python bench/run.py --case conv-M conv-L --dtype float32 --json results.json
    python bench/run.py --quick                        # a minute: small sizes, few rounds

The table shows the median time of our call and, for each peer, how many times longer it takes: median of the
ratios within rounds, lowest and highest in brackets. Below 1 the peer is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.peers import OURS, PEERS
from bench.problems import CASES, ConvCase, HarmonicsCase, ModelCase
from bench.timing import Timing, interleaved, keep_freed_memory, machine

_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}  # a contender that computes something else is not compared


def calls_of(peer: Any, case: Any, dtype: torch.dtype, device: str) -> dict[str, Callable[[], list[torch.Tensor]]]:
    """What to time of one contender on one case: mode -> call, which returns values to compare."""
    if isinstance(case, ModelCase):
        model, data = peer.model(case, dtype, device)

        def energy_and_forces() -> list[torch.Tensor]:
            out = model(dict(data))
            return [out["total_energy"].detach(), out["forces"].detach()]

        return {"energy+forces": energy_and_forces}
    *tensors, cotangent = (t.detach().to(device).requires_grad_(t.requires_grad) for t in case.tensors(dtype))
    function = peer.conv(case, dtype, device) if isinstance(case, ConvCase) else peer.harmonics(case, dtype, device)

    def forward() -> list[torch.Tensor]:
        with torch.no_grad():
            return [function(*tensors)]

    def backward() -> list[torch.Tensor]:
        return list(torch.autograd.grad(function(*tensors), tensors, cotangent))

    def double_backward() -> list[torch.Tensor]:
        first = torch.autograd.grad(function(*tensors), tensors, cotangent, create_graph=True)
        return list(torch.autograd.grad([g.square().sum() for g in first], tensors))

    modes = {"forward": forward, "forward+backward": backward}
    if getattr(peer, "DIFFERENTIATES_TWICE", True):
        modes["double backward"] = double_backward
    return modes


def measure(
    case: ConvCase | HarmonicsCase | ModelCase, peers: Sequence[str], dtype: str, device: str, quick: bool
) -> list[dict[str, Any]]:
    """Time one case; one row per mode. Results of all contenders are compared first."""
    kind = {ConvCase: "conv", HarmonicsCase: "harmonics", ModelCase: "model"}[type(case)]
    contenders, absent = {}, {}
    for name in dict.fromkeys([OURS, *peers]):
        peer = PEERS[name]
        reason = peer.missing() if hasattr(peer, kind) else None
        if hasattr(peer, kind) and reason is None:
            contenders[name] = calls_of(peer, case, getattr(torch, dtype), device)
        elif reason:
            absent[name] = reason
    rows = []
    for mode, our_call in contenders[OURS].items():
        calls = {name: modes[mode] for name, modes in contenders.items() if mode in modes}
        expected = our_call()
        for name, call in calls.items():
            errors = [_error(a, b) for a, b in zip(call(), expected, strict=True)]
            assert max(errors) < _TOLERANCE[dtype], f"{name} computes something else in {case.name}: {errors}"
        timings = interleaved(calls, device, rounds=3 if quick else 9, seconds_a_round=0.05 if quick else 0.3)
        rows.append(_row(case.name, mode, dtype, device, timings, absent))
    return rows


def _error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def _row(case: str, mode: str, dtype: str, device: str, timings: dict[str, Timing], absent: dict) -> dict[str, Any]:
    ours = timings[OURS]
    slower = {name: t.ratio_to(ours) for name, t in timings.items() if name != OURS}
    return {
        "case": case,
        "mode": mode,
        "dtype": dtype,
        "device": device,
        "milliseconds": {name: 1e3 * timing.median for name, timing in timings.items()},
        "times_slower": {name: dict(zip(("median", "low", "high"), r, strict=True)) for name, r in slower.items()},
        "absent": absent,
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One line per row, one column per peer; plain text, since a bare GPU machine has no table library."""
    names = list(dict.fromkeys(name for row in rows for name in row["times_slower"]))
    lines = [["case", "mode", "dtype", f"{OURS} / ms", *names]]
    for row in rows:
        cells = [
            "{median:.3g}× [{low:.3g}–{high:.3g}]".format(**row["times_slower"][n]) if n in row["times_slower"] else "–"
            for n in names
        ]
        lines.append([row["case"], row["mode"], row["dtype"], f"{row['milliseconds'][OURS]:.3g}", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\ntimes longer than {OURS}: median [lowest–highest] over rounds")
    for line in lines:
        print(
            "  ".join(
                cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
        )
    for name, reason in {k: v for row in rows for k, v in row["absent"].items()}.items():
        print(f"{name}: left out, {reason}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="bench/run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    peers = [name for name in PEERS if name != OURS]
    result.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    result.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    result.add_argument("--dtype", nargs="+", choices=["float32", "float64"], default=["float32"])
    result.add_argument("--peers", nargs="*", choices=peers, default=peers, metavar="PEER", help=", ".join(peers))
    result.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="CPU threads (default: 2)")
    result.add_argument("--json", type=Path, metavar="FILE", help="write all numbers and the machine to FILE")
    result.add_argument("--quick", action="store_true", help="small sizes and few rounds, for a first look")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, write."""
    arguments = parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("bench: no CUDA device that this torch can use", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"bench: load {load:.1f} in the last minute; times need a machine of their own", file=sys.stderr)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    disagreements: list[str] = []
    for name in arguments.case:
        case = CASES[name].quick() if arguments.quick else CASES[name]
        for dtype in arguments.dtype:
            print(f"{name} {dtype} …", file=sys.stderr, flush=True)
            try:
                rows += measure(case, arguments.peers, dtype, arguments.device, arguments.quick)
            except AssertionError as error:  # a contender disagrees: no number for this case, the others stand
                disagreements.append(str(error))
            torch.compiler.reset()
    print_table(rows)
    for message in disagreements:
        print(f"bench: {message}", file=sys.stderr)
    if arguments.json:
        from nequip_fast.files import write_text

        report = {"machine": machine(arguments.device), "load_before": load, "quick": arguments.quick, "rows": rows}
        write_text(arguments.json, json.dumps(report, indent=1) + "\n")
        print(f"wrote {arguments.json}")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
