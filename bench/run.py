"""Measure nequip_fast against its peers, side by side in one run.

    python bench/run.py                                # every case on this machine, float32 and float64
    python bench/run.py --case conv-M conv-L --dtype float32 --json results.json
    python bench/run.py --json results.json --resume   # go on where an interrupted run stopped
    python bench/run.py --quick                        # a few minutes: small sizes, few rounds

Every case is written to the file as soon as it is measured, and to a readable table beside it (.md). What the columns
mean is said in bench/results/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.calls import ENERGY_AND_FORCES, Call, NotOffered, derivatives
from bench.peers import FAMILIES, OURS, PEERS
from bench.problems import CASES, Case, ConvCase, ModelCase, ModuleCase
from bench.report import markdown, summary
from bench.roofline import Peaks, conv_work, measure_peaks, shares
from bench.timing import MIN_ROUNDS, interleaved, keep_freed_memory, machine
from nequip_fast.files import write_text

_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}  # a contender that computes something else is not compared


class Disagreement(Exception):
    """A contender computes something else than nequip_fast."""


def calls_of(name: str, case: Case, dtype: torch.dtype, device: str) -> dict[str, Call]:
    """What to time of one contender on one case, by mode.

    Raises:
        NotOffered: it does not run such cases (no message) or not this one.
    """
    peer = PEERS[name]
    if hasattr(peer, f"{case.kind}_calls"):
        return getattr(peer, f"{case.kind}_calls")(case, dtype, device)
    offered = "module" if isinstance(case, ModuleCase) else case.kind
    if not hasattr(peer, offered):
        raise NotOffered
    if isinstance(case, ModelCase):
        model, data = peer.model(case, dtype, device)

        def energy_and_forces() -> list[torch.Tensor]:
            out = model(dict(data))
            return [out["total_energy"].detach(), out["forces"].detach()]

        return {ENERGY_AND_FORCES: Call(energy_and_forces)}
    function = getattr(peer, offered)(case, dtype, device)
    parameters: Sequence[torch.Tensor] = ()
    if isinstance(case, ModuleCase):
        parameters = list(function.parameters())
        held = bool(getattr(function, "internal_weights", True))
        weights = 0 if held else getattr(function, "weight_numel", 0)
        perceptron = hasattr(function, "hs")
        tensors = case.tensors(dtype, weights, function.hs[-1] if perceptron else function.irreps_out.dim)
    else:
        tensors = case.tensors(dtype)
    *leaves, cotangent = (t.detach().to(device).requires_grad_(t.requires_grad) for t in tensors)
    twice = getattr(peer, "DIFFERENTIATES_TWICE", True)
    return derivatives(function, leaves, cotangent, parameters, twice)


def contenders_of(
    case: Case, peers: Sequence[str], dtype: str, device: str
) -> tuple[dict[str, dict[str, Call]], dict[str, str]]:
    """(calls by contender and mode, why those left out are)."""
    calls, absent = {}, {}
    for name in dict.fromkeys([OURS, *peers]):
        try:
            if reason := PEERS[name].missing():
                raise NotOffered(reason)
            calls[name] = calls_of(name, case, getattr(torch, dtype), device)
        except NotOffered as error:
            if str(error):
                absent[name] = str(error)
            continue
        except Exception as error:
            if not hasattr(PEERS[name], "DEVICES"):
                raise
            absent[name] = in_a_line(error)
            continue
        for mode in list(calls[name]):
            if hasattr(PEERS[name], "left_out") and (reason := PEERS[name].left_out(case, mode, device)):
                absent[f"{name}, {mode}"] = reason
                del calls[name][mode]
    return calls, absent


def default_peers(device: str) -> list[str]:
    """All that have kernels for the device, but for the plain-torch definition."""
    return [
        name
        for name, peer in PEERS.items()
        if name not in (OURS, "reference") and device in getattr(peer, "DEVICES", (device,))
    ]


def compare(case: Case, mode: str, dtype: str, calls: dict[str, Call]) -> dict[str, str]:
    """Every contender computes what we compute; this is also the call that warms each up.

    Returns:
        Why those of other libraries that could not run did not.

    Raises:
        Disagreement: one computes something else.
    """
    expected, failed = calls[OURS].run(), {}
    for name, call in calls.items():
        try:
            results = call.as_ours(call.run())
            errors = [float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(results, expected, strict=True)]
        except Exception as error:
            if not hasattr(PEERS[name], "DEVICES"):
                raise
            failed[name] = in_a_line(error)
            continue
        if not max(errors) < _TOLERANCE[dtype]:
            raise Disagreement(f"{name} computes something else in {case.name}, {mode}, {dtype}: {errors}")
    return failed


def in_a_line(error: Exception) -> str:
    """What went wrong in a library of kernels."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def measure(
    case: Case, peers: Sequence[str], dtype: str, device: str, budget: float, quick: bool, peaks: Peaks | None
) -> list[dict[str, Any]]:
    """Time one case; one row per mode. ``budget``: seconds for all modes together, beyond the least rounds."""
    contenders, absent = contenders_of(case, peers, dtype, device)
    if OURS not in contenders:
        print(f"bench: {case.name} is left out: {absent[OURS]}", file=sys.stderr)
        return []
    work = conv_work(case, torch.finfo(getattr(torch, dtype)).bits // 8) if isinstance(case, ConvCase) else {}
    rows = []
    for mode in contenders[OURS]:
        calls = {name: modes[mode] for name, modes in contenders.items() if mode in modes}
        for name, reason in compare(case, mode, dtype, calls).items():
            del calls[name]
            absent[f"{name}, {mode}"] = reason
        timings = interleaved(
            {name: call.run for name, call in calls.items()},
            device,
            rounds=3 if quick else MIN_ROUNDS,
            seconds_a_round=0.02 if quick else 0.1,
            budget=budget / len(contenders[OURS]),
        )
        ours = timings[OURS]
        slower = {name: t.ratio_to(ours) for name, t in timings.items() if name != OURS}
        row = {
            "case": case.name,
            "kind": case.kind,
            "mode": mode,
            "dtype": dtype,
            "rounds": len(ours.seconds),
            "milliseconds": {name: 1e3 * timing.median for name, timing in timings.items()},
            "times_slower": {n: dict(zip(("median", "low", "high"), r, strict=True)) for n, r in slower.items()},
            "best": best_of_families(timings),
            "absent": {k: v for k, v in absent.items() if ", " not in k or k.endswith(mode)},
        }
        if peaks is not None and mode in work:
            row["roofline"] = shares(work[mode], ours.median, dtype, peaks) | {"edges": case.edges}
        rows.append(row)
    return rows


def best_of_families(timings: dict[str, Any]) -> dict[str, str]:
    """Family -> its fastest contender here."""
    best: dict[str, str] = {}
    for name in timings:
        family = FAMILIES.get(name)
        if family and (family not in best or timings[name].median < timings[best[family]].median):
            best[family] = name
    return best


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="bench/run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    peers = [name for name in PEERS if name != OURS]
    result.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    result.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    result.add_argument("--dtype", nargs="+", choices=list(_TOLERANCE), default=list(_TOLERANCE))
    result.add_argument("--peers", nargs="*", choices=peers, metavar="PEER",
                        help=f"{', '.join(peers)} (default: all for the device, but reference)")  # fmt: skip
    result.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="CPU threads (default: 2)")
    result.add_argument("--budget", type=float, default=35, metavar="MINUTES",
                        help="aim at this time for the whole run; five rounds of every case come first")  # fmt: skip
    result.add_argument("--json", type=Path, metavar="FILE", help="write all numbers and the machine to FILE")
    result.add_argument("--resume", action="store_true", help="keep what FILE holds, measure what it lacks")
    result.add_argument("--quick", action="store_true", help="small sizes and few rounds, for a first look")
    return result


def start_report(arguments: argparse.Namespace, peaks: Peaks | None) -> dict[str, Any]:
    """An empty report, or the one of the interrupted run.

    Raises:
        SystemExit: the file to resume is of another machine, version or size of problems.
    """
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"bench: load {load:.1f} in the last minute; times need a machine of their own", file=sys.stderr)
    report = {
        "machine": machine(arguments.device),
        "load_before": load,
        "quick": arguments.quick,
        "peaks": peaks.json() if peaks else None,
        "rows": [],
    }
    if arguments.resume and arguments.json and arguments.json.is_file():
        before = json.loads(arguments.json.read_text())
        same_machine = {**before["machine"], "date": None} == {**report["machine"], "date": None}
        if not same_machine or before["quick"] != report["quick"]:
            sys.exit(f"bench: {arguments.json} is of another machine, version or size; run without --resume")
        return before
    return report


def measured_peaks(device: str, threads: int) -> Peaks | None:
    """Of this processor or GPU."""
    if device == "cpu":
        return measure_peaks(threads)
    from bench.gpu_peaks import measure_gpu_peaks

    return measure_gpu_peaks()


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, write."""
    arguments = parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("bench: no CUDA device that this torch can use", file=sys.stderr)
        return 2
    peers = default_peers(arguments.device) if arguments.peers is None else arguments.peers
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    end = time.monotonic() + 60 * arguments.budget
    report = start_report(arguments, measured_peaks(arguments.device, arguments.threads))
    peaks = Peaks(**report["peaks"]) if report["peaks"] else None
    done = {(row["case"], row["dtype"]) for row in report["rows"]}
    todo = [(n, d) for n in arguments.case for d in arguments.dtype if (n, d) not in done]
    disagreements: list[str] = []
    for i, (name, dtype) in enumerate(todo):
        case = CASES[name].quick() if arguments.quick else CASES[name]
        print(f"[{i + 1}/{len(todo)}] {name} {dtype}", file=sys.stderr, flush=True)
        share = max(0.0, end - time.monotonic()) / (len(todo) - i)
        try:
            report["rows"] += measure(case, peers, dtype, arguments.device, share, arguments.quick, peaks)
        except Disagreement as error:  # no number for this case, the others stand
            disagreements.append(str(error))
        torch.compiler.reset()
        if arguments.json:
            write_text(arguments.json, json.dumps(report, indent=1) + "\n")
            write_text(arguments.json.with_suffix(".md"), markdown(report))
    print(summary(report))
    for message in disagreements:
        print(f"bench: {message}", file=sys.stderr)
    if arguments.json:
        print(f"wrote {arguments.json} and {arguments.json.with_suffix('.md')}")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
