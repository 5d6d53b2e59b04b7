"""How much of the machine a convolution uses: the work it cannot avoid against the peaks measured in the same run.

Work is counted, not measured. Fused multiply-adds are those of the factorised product, in which the Clebsch-Gordan
tensor of a path meets the harmonics once an edge, leaving a sparse matrix B[m1, m3] that all channels share; bytes are
every input read once and every output written once. A kernel that repeats work, or reads a row again, has the lower
share for it.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from bisect import bisect_left
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import log
from pathlib import Path
from typing import Any

from e3nn import o3
from torch import float64

from bench.problems import ConvCase

_SOURCE = Path(__file__).with_name("peaks.cpp")
_MEGABYTE = 2**20
_SIZES = [_MEGABYTE // 4, _MEGABYTE, *(_MEGABYTE * n for n in (4, 8, 16, 24, 32, 48, 64, 128, 256))]
_TRIES = 5  # the best counts: a peak is what nothing disturbed
_SECONDS = 0.05  # a try


@dataclass(frozen=True)
class Peaks:
    """Fused multiply-adds a second by dtype; bytes a second read and written by size of what is walked over."""

    threads: int
    fma: dict[str, float]
    sizes: list[int]
    read: list[float]
    write: list[float]

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def seconds_of_bytes(self, read: float, written: float) -> float:
        """Least time to move these bytes, at the rates of arrays of their total size (cache or memory)."""
        return read / self._rate(self.read, read + written) + written / self._rate(self.write, read + written)

    def _rate(self, rates: list[float], size: float) -> float:
        """Between two measured sizes, linear in the logarithm of the size."""
        k = bisect_left(self.sizes, size)
        if k == 0 or k == len(self.sizes):
            return rates[min(k, len(rates) - 1)]
        low, high = log(self.sizes[k - 1]), log(self.sizes[k])
        t = (log(size) - low) / (high - low)
        return (1 - t) * rates[k - 1] + t * rates[k]


def measure_peaks(threads: int) -> Peaks | None:
    """Measured now, with ``threads`` threads (about ten seconds); None where there is no C++ compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peaks.so"
        flags = ["-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", "-pthread", "-Wno-psabi"]
        subprocess.run([compiler, *flags, str(_SOURCE), "-o", str(library)], check=True)
        code = ctypes.CDLL(str(library))
        for name in ("fma_rate", "read_rate", "write_rate"):
            getattr(code, name).restype = ctypes.c_double
        steps = ctypes.c_int64(5_000_000)
        fma = {
            dtype: max(code.fma_rate(is_double, threads, steps) for _ in range(_TRIES))
            for is_double, dtype in enumerate(("float32", "float64"))
        }
        rates = {
            name: [_bandwidth(getattr(code, name), threads, size) for size in _SIZES]
            for name in ("read_rate", "write_rate")
        }
    return Peaks(threads, fma, _SIZES, rates["read_rate"], rates["write_rate"])


def _bandwidth(rate: Any, threads: int, size: int) -> float:
    """Best of several walks long enough to time."""
    size_ = ctypes.c_int64(size)
    first = rate(threads, size_, ctypes.c_int64(2))
    times = ctypes.c_int64(max(2, int(_SECONDS * first / size)))
    return max(rate(threads, size_, times) for _ in range(_TRIES))


@dataclass(frozen=True)
class Work:
    """Fused multiply-adds, and bytes read and written."""

    fma: int
    read: int
    written: int


@lru_cache(maxsize=1024)
def cg_counts(l1: int, l2: int, l3: int) -> tuple[int, int]:
    """(terms, entries): nonzero coefficients C(m1, m2, m3), and pairs (m1, m3) that have one."""
    nonzero = o3.wigner_3j(l1, l2, l3, dtype=float64).abs() > 1e-12
    return int(nonzero.sum()), int(nonzero.any(dim=1).sum())


def conv_work(case: ConvCase, element: int) -> dict[str, Work]:
    """Least work by mode, for elements of ``element`` bytes.

    Forward, for an edge and a path with n1, n3 components: B from the harmonics (terms), w·x (n1 a channel), B·(w·x)
    (entries a channel). Backward: Bᵀg serves dx and dw (entries + 2 n1 a channel), w·x once more (n1), and dB[m1, m3],
    summed over channels (entries a channel), gives dy (terms). Indices of the edges are 8 bytes each.
    """
    problem, edges = case.problem(), case.edges
    nodes = case.graph().num_nodes
    forward = backward = 0
    for path in problem.paths:
        terms, entries = cg_counts(path.l1, path.l2, path.l3)
        n1 = 2 * path.l1 + 1
        forward += terms + path.mul * (n1 + entries)
        backward += 2 * terms + path.mul * (3 * n1 + 2 * entries)
    inputs = element * (nodes * problem.dim_x + edges * (problem.dim_y + problem.dim_w)) + 8 * edges
    out = element * nodes * problem.dim_out
    return {
        "forward": Work(edges * forward, inputs, out),
        # the backward pass reads the inputs again and the cotangent, and writes a gradient for each input
        "forward+backward": Work(edges * (forward + backward), 2 * inputs + out, out + inputs - 8 * edges),
    }


def shares(work: Work, seconds: float, dtype: str, peaks: Peaks) -> dict[str, Any]:
    """Share of each roof that a call of ``seconds`` reaches, and the one that binds."""
    arithmetic = work.fma / peaks.fma[dtype] / seconds
    memory = peaks.seconds_of_bytes(work.read, work.written) / seconds
    return {
        "gfma": work.fma / 1e9,
        "megabytes": (work.read + work.written) / 1e6,
        "fma_share": arithmetic,
        "bytes_share": memory,
        "binding": "FMA" if arithmetic >= memory else "bytes",
    }
