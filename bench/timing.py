"""Timing side by side: all contenders in every round, order reversed every other round, ratios per round.

A machine that slows down for a second slows all of them, so ratios within a round are steadier than times.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

import nequip_fast

MIN_ROUNDS, MAX_ROUNDS = 5, 25
_STEADY = 0.01  # uncertainty of a median ratio that is good enough
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Timing:
    """Seconds a call in each round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Median over rounds."""
        return median(self.seconds)

    def ratio_to(self, other: Timing) -> tuple[float, float, float]:
        """How many times slower than ``other``, round by round: (median, lowest, highest)."""
        ratios = [a / b for a, b in zip(self.seconds, other.seconds, strict=True)]
        return median(ratios), min(ratios), max(ratios)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, so that no contender is timed on page faults of fresh memory.

    Without it a tensor above 32 MB is mapped anew at each call, at 1–2 ms for every 10 MB. That would flatter us:
    contenders that form a tensor of messages pay most (e3nn's forward pass of conv-M takes nearly twice as long).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(ctypes.util.find_library("c"))
        libc.mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def interleaved(
    calls: dict[str, Callable[[], Any]],
    device: str,
    rounds: int = MIN_ROUNDS,
    seconds_a_round: float = 0.3,
    budget: float = 0.0,
    max_rounds: int = MAX_ROUNDS,
) -> dict[str, Timing]:
    """Time every call in rounds of about ``seconds_a_round`` for each; each has been called before.

    ``rounds`` at least; with a ``budget`` in seconds more, until the ratios are steady, the budget is spent or
    ``max_rounds`` are done.
    """
    deadline = time.perf_counter() + budget
    repeats = {}
    for name, call in calls.items():
        repeats[name] = max(1, min(1000, int(seconds_a_round / max(_seconds(call, 1, device), 1e-7))))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    done = 0
    while done < rounds or (done < max_rounds and time.perf_counter() < deadline and not _steady(seconds)):
        for name in list(calls) if done % 2 == 0 else reversed(list(calls)):
            seconds[name].append(_seconds(calls[name], repeats[name], device))
        done += 1
    return {name: Timing(values) for name, values in seconds.items()}


def _steady(seconds: dict[str, list[float]]) -> bool:
    """The median ratio to the first contender is known to about a hundredth, for every other."""
    first, *others = seconds.values()
    for other in others:
        ratios = [a / b for a, b in zip(other, first, strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        if high - low > _STEADY * middle * len(ratios) ** 0.5:
            return False
    return True


def _seconds(call: Callable[[], Any], repeats: int, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def machine(device: str) -> dict[str, Any]:
    """What the numbers were measured on: processor, threads, versions, date."""
    versions = {}
    for package in ("torch", "e3nn", "nequip", "sphericart-torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    info = nequip_fast.info()
    return {
        "processor": info["cuda"] if device == "cuda" else _processor(),
        "threads": info["threads"],
        "cpu_isa": info["cpu_isa"],
        "extension": info["extension"],
        "python": info["python"],
        "nequip_fast": info["version"],
        "versions": versions,
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
