"""Peak memory of one convolution: what a call takes beyond its inputs, nequip_fast and e3nn, each in its own process.

    python bench/memory.py                                  # presets S, M and L, float32
    python bench/memory.py --case conv-XL --dtype float64 --edges 5000

Everything counts, tensors of torch and scratch of the kernels alike: it is the rise of the process's peak of resident
memory (Linux: VmHWM) over what was resident before the call. "needed" is the output and, with the backward pass, the
gradients; "messages" is one tensor [E, dim_out], which a convolution that does not fuse its sum forms.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.peers import PEERS
from bench.problems import CASES, ConvCase

CONTENDERS = ("nequip_fast", "e3nn")
MODES = ("forward", "forward+backward")
_MEGABYTE = 1e6


def extra_bytes(case: ConvCase, contender: str, mode: str, dtype: str = "float32") -> int:
    """Peak memory of one call beyond its inputs, measured in a fresh process."""
    arguments = ["--only", contender, mode, "--case", case.name, "--edges", str(case.edges), "--dtype", dtype]
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def needed_bytes(case: ConvCase, mode: str, dtype: str = "float32") -> int:
    """The output and, where the mode has a backward pass, the gradients of x, y and w."""
    problem, nodes = case.problem(), case.graph().num_nodes
    elements = nodes * problem.dim_out
    if mode != "forward":
        elements += nodes * problem.dim_x + case.edges * (problem.dim_y + problem.dim_w)
    return elements * getattr(torch, dtype).itemsize


def messages_bytes(case: ConvCase, dtype: str = "float32") -> int:
    """One tensor [E, dim_out]."""
    return case.edges * case.problem().dim_out * getattr(torch, dtype).itemsize


def _measure_here(case: ConvCase, contender: str, mode: str, dtype: torch.dtype) -> int:
    def call(case: ConvCase) -> None:
        function = PEERS[contender].conv(case, dtype, "cpu")
        *tensors, cotangent = case.tensors(dtype)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        start_peak()
        before.append(status("VmRSS"))
        if mode == "forward":
            with torch.no_grad():
                function(*tensors)
        else:
            torch.autograd.grad(function(*tensors), tensors, cotangent)

    before: list[int] = []
    call(replace(case, edges=case.neighbours))  # code and constants are loaded
    call(case)
    return status("VmHWM") - before[-1]


def start_peak() -> None:
    """Let the peak of resident memory start anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def status(field: str) -> int:
    """Bytes that /proc/self/status gives for ``field``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}: this measurement needs Linux")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="bench/memory.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cases = [name for name, case in CASES.items() if isinstance(case, ConvCase)]
    parser.add_argument(
        "--case", nargs="+", choices=cases, default=["conv-S", "conv-M", "conv-L"], metavar="CASE",
        help=", ".join(cases),
    )  # fmt: skip
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--edges", type=int, help="edges of the graph (default: the case's)")
    parser.add_argument("--only", nargs=2, metavar=("CONTENDER", "MODE"), help="print the bytes of one, measured here")
    arguments = parser.parse_args(argv)
    chosen = [CASES[name] for name in arguments.case]
    chosen = [replace(case, edges=arguments.edges or case.edges) for case in chosen]
    if arguments.only:
        print(_measure_here(chosen[0], *arguments.only, getattr(torch, arguments.dtype)))
        return 0
    print(f"{'MB beyond the inputs':22}{'edges':>8}{'needed':>9}{'messages':>10}", *(f"{c:>12}" for c in CONTENDERS))
    for case in chosen:
        for mode in MODES:
            peaks = [extra_bytes(case, contender, mode, arguments.dtype) for contender in CONTENDERS]
            sizes = needed_bytes(case, mode, arguments.dtype), messages_bytes(case, arguments.dtype), *peaks
            needed, messages, *found = (f"{size / _MEGABYTE:.1f}" for size in sizes)
            print(f"{case.name}\n  {mode:20}{case.edges:8,}{needed:>9}{messages:>10}", *(f"{f:>12}" for f in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
