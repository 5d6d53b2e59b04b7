"""The peaks of a GPU, measured: fused multiply-adds, bytes read and written from its caches and its memory.

A program walks over blocks that lie far apart and visits none twice in a row, so that nothing comes from a first cache.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import triton
import triton.language as tl

from bench.roofline import Peaks

_MEGABYTE = 2**20
_SIZES = [_MEGABYTE * n for n in (1, 4, 8, 16, 24, 32, 48, 64, 128, 256, 1024)]
_BLOCK = 4096  # numbers a program reads at a time
_STRIDE = 977  # blocks between those that a program reads; prime
_BYTES = 4 * 2**30  # moved at a try
_STEPS = 4096  # multiply-adds of each of a lane's numbers
_TRIES = 5  # the best counts: a peak is what nothing disturbed


@triton.jit(do_not_specialize=["blocks", "times"])
def read(x, out, blocks, times, BLOCK: tl.constexpr, STRIDE: tl.constexpr):
    """Sums of ``times`` blocks a program."""
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(times):
        block = ((tl.program_id(0) + step * STRIDE) % blocks).to(tl.int64)
        total += tl.load(x + block * BLOCK + lane)
    tl.store(out + tl.program_id(0), tl.sum(total, 0))


@triton.jit(do_not_specialize=["blocks", "times"])
def write(x, blocks, times, BLOCK: tl.constexpr, STRIDE: tl.constexpr):
    """As many blocks written."""
    lane = tl.arange(0, BLOCK)
    for step in range(times):
        block = ((tl.program_id(0) + step * STRIDE) % blocks).to(tl.int64)
        tl.store(x + block * BLOCK + lane, lane.to(tl.float32))


@triton.jit(do_not_specialize=["steps"])
def multiply_add(x, steps, BLOCK: tl.constexpr):
    """Eight independent chains a lane."""
    at = x + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(at)
    b, c, d, e, f, g, h = a + 1.0, a + 2.0, a + 3.0, a + 4.0, a + 5.0, a + 6.0, a + 7.0
    factor, term = a * 0.5, a + 0.25
    for _ in range(steps):
        a, b = tl.fma(a, factor, term), tl.fma(b, factor, term)
        c, d = tl.fma(c, factor, term), tl.fma(d, factor, term)
        e, f = tl.fma(e, factor, term), tl.fma(f, factor, term)
        g, h = tl.fma(g, factor, term), tl.fma(h, factor, term)
    tl.store(at, a + b + c + d + e + f + g + h)


def measure_gpu_peaks() -> Peaks:
    """Of the current device, in a few seconds."""
    programs = 16 * torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    out = torch.empty(programs, device="cuda")
    rates: dict[str, list[float]] = {"read": [], "write": []}
    for size in _SIZES:
        x = torch.zeros(size // 4, device="cuda")
        blocks, times = size // 4 // _BLOCK, _BYTES // (4 * _BLOCK * programs)
        moved, shape = 4 * _BLOCK * programs * times, {"BLOCK": _BLOCK, "STRIDE": _STRIDE, "num_warps": 8}
        rates["read"].append(moved / _seconds(read, programs, x, out, blocks, times, **shape))
        rates["write"].append(moved / _seconds(write, programs, x, blocks, times, **shape))
    fma = {}
    for dtype in (torch.float32, torch.float64):
        x = torch.zeros(256 * programs, device="cuda", dtype=dtype)
        count = 8 * x.numel() * _STEPS
        fma[str(dtype).removeprefix("torch.")] = count / _seconds(
            multiply_add, programs, x, _STEPS, BLOCK=256, num_warps=8
        )
    return Peaks(0, fma, _SIZES, rates["read"], rates["write"])


def _seconds(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> float:
    """The shortest of several launches."""
    kernel[(programs,)](*arguments, **constants)
    found = []
    for _ in range(_TRIES):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        kernel[(programs,)](*arguments, **constants)
        end.record()
        end.synchronize()
        found.append(1e-3 * start.elapsed_time(end))
    return min(found)


if __name__ == "__main__":
    print(measure_gpu_peaks())
