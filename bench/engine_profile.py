"""Where a step of the inference engine goes: share of time by part, and multiply-adds against the machine's peak.

    python bench/engine_profile.py [--cases water-M toluene-S] [--json bench/results/engine-profile.json]

Time is sampled with ``perf record`` (Linux) while steps of ``bench/engine.py`` run; multiply-adds are counted from the
compiled program: what the passes cannot avoid, padding left out. The peak is measured in the same run. ``outside`` is
everything that is none of ours: Python, ASE, the move of the atoms, the operating system.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.engine import CASES, SevenNetCase, engine_step
from bench.peers import sevennet
from bench.roofline import cg_counts, measure_peaks
from bench.timing import keep_freed_memory, machine
from nequip_fast.engine.program import Program, RadialNetwork

_PARTS = {  # of the symbols' names
    "convolution, forward": r"::gather(_any)?<",
    "convolution, reverse": r"::gradient(_any)?<",
    "radial weights": r"weights|add_products|hermite|Radial<|activate_all",
    "linear maps": r"product_block|product_columns|::multiply|LinearWork",
    "gates": r"::gate(_vjp)?<|ChannelGate",
    "harmonics": r"harmonics|columns<|add_sums|::vjp",
    "edges and bookkeeping": r"nf::",
}


def multiply_adds(program: Program, atoms: int, edges: int) -> dict[str, float]:
    """Of one step, by part; tables take 5 for a weight, 10 for a weight and its slope, the dot product 1."""
    forward = reverse = radial = linear = 0.0
    for index, layer in enumerate(program.layers):
        weights = sum(layer.sent[path.source].mul for path in layer.paths)
        for path in layer.paths:
            mul, l1 = layer.sent[path.source].mul, layer.sent[path.source].l
            terms, entries = cg_counts(l1, path.l2, layer.summed[path.target])
            n1 = 2 * l1 + 1
            forward += edges * (terms + mul * (n1 + entries))
            # to x (not in a first layer that is collapsed) and to w share their product; to Y
            to_x = 0 if index == 0 and layer.sent_by_type is not None else n1
            reverse += edges * (2 * terms + mul * (2 * n1 + to_x + 2 * entries))
        if isinstance(layer.radial, RadialNetwork):
            *hidden, last = layer.radial.matrices
            radial += edges * (3 * last.shape[0] * weights + 3 * sum(matrix.numel() for matrix in hidden))
        else:
            radial += edges * (5 + 10 + 1) * weights
        for maps, targets in (
            (layer.send, layer.sent),
            (layer.mix, layer.before_gate),
            (layer.self_connection, layer.before_gate),
        ):
            for linear_map in maps:
                *_, rows, columns = linear_map.matrix.shape
                linear += 2 * atoms * (2 * targets[linear_map.target].l + 1) * rows * columns
    return {
        "convolution, forward": forward,
        "convolution, reverse": reverse,
        "radial weights": radial,
        "linear maps": linear,
    }


def shares_of_time(step: Any, seconds: float) -> dict[str, float]:
    """Sampled while ``step`` is repeated for ``seconds``."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        perf = subprocess.Popen(
            ["perf", "record", "-q", "-F", "999", "-p", str(os.getpid()), "-o", str(data)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)  # it attaches
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            step()
        perf.send_signal(signal.SIGINT)
        perf.wait()
        command = ["perf", "report", "-i", str(data), "--no-children", "-F", "overhead,symbol", "--stdio"]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts = dict.fromkeys([*_PARTS, "outside"], 0.0)
    for line in report.splitlines():
        if found := re.match(r"\s*([\d.]+)%\s+\[.\]\s+(.*)", line):
            name = found[2]
            part = next(
                (part for part, pattern in _PARTS.items() if "nf" in name and re.search(pattern, name)), "outside"
            )
            parts[part] += float(found[1]) / 100
    parts["outside"] += 1 - sum(parts.values())
    return parts


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--radial", default="table", choices=["table", "exact"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of sampling for a case")
    parser.add_argument("--json", type=Path, help="write the numbers and the machine to this file")
    arguments = parser.parse_args()
    if shutil.which("perf") is None:
        parser.error("perf is not installed (package linux-perf)")
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    peaks = measure_peaks(arguments.threads)
    assert peaks is not None, "no C++ compiler"
    peak = peaks.fma["float32"]
    rows = []
    for name in arguments.cases:
        if isinstance(CASES[name], SevenNetCase) and (reason := sevennet.missing()):
            print(f"{name}: left out, {reason}")
            continue
        step, potential, atoms, edges = engine_step(CASES[name], arguments.radial)
        times = []
        for _ in range(max(5, int(3 / timed(step)))):
            times.append(timed(step))
        seconds = sorted(times)[len(times) // 2]
        work, shares = multiply_adds(potential.program, atoms, edges), shares_of_time(step, arguments.seconds)
        total = sum(work.values())
        print(
            f"{name}: {1e3 * seconds:.3f} ms a step, {edges} edges, {total / 1e9:.3f} GFMA, "
            f"{total / seconds / 1e9:.1f} GFMA/s = {100 * total / seconds / peak:.0f} % of the peak"
        )
        for part, share in shares.items():
            rate = work.get(part, 0.0) / (share * seconds) if share else 0.0
            print(
                f"  {part:22s} {100 * share:5.1f} %"
                + (f"  {rate / 1e9:6.1f} GFMA/s ({100 * rate / peak:.0f} %)" if rate else "")
            )
        rows.append({"case": name, "seconds": seconds, "edges": edges, "multiply_adds": work, "share_of_time": shares})
    if arguments.json:
        result = {"machine": machine("cpu"), "radial": arguments.radial, "peak_fma": peak, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def timed(step: Any) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
