"""Three ways to bring the radial weights w [E, W] to the convolution on a GPU: what an edge costs, which should win.

    python bench/radial_variants.py [--markdown bench/results/radial-variants.md]
    python bench/radial_variants.py --measure times.json       # the three on a GPU, side by side

separate: the last layer w = h A of the radial network (h [E, H]) as a matrix product of its own, w in DRAM.
hidden: tiles of h A formed inside the convolution, w never in DRAM: once forward, and for the gradients of x and of Y;
that of h takes a fourth product. A program reads its part of A once for a tile of 16 edges, the least that tensor cores
take; programs that follow each other have the same part, so that it comes from L1.
table: w interpolated inside the convolution, quintic Hermite tables of six rows a weight, as often, from L1 too.

Nothing in the table is measured. Counted are forward and the reverse pass of forces (gradients of x, Y and r): the
bytes that DRAM, L2 and L1 must move at least, multiply-adds of float32, and those of tensor cores (three TF32 products
for one of float32). The slowest of the five at the device's peak is the prediction. Peaks are those of NVIDIA's data
sheets (SXM, dense); L1 gives 128 bytes a clock and multiprocessor; none states L2's, for which twice the DRAM bandwidth
is taken.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from bench.calls import derivatives
from bench.problems import CASES, ConvCase
from bench.roofline import cg_counts
from bench.timing import interleaved, machine
from nequip_fast.files import write_text
from nequip_fast.kernels.table import HIDDEN_GROUP, Table
from nequip_fast.ops import Graph, conv, conv_of_hidden, conv_of_table

HIDDEN = {"conv-M": 128, "conv-L": 128, "conv-l3i5": 64}  # width of the last hidden layer
DEVICES = {  # bytes/s of DRAM and of L1, multiply-adds/s in float32, in TF32
    "A100": (2.04e12, 108 * 128 * 1.41e9, 19.5e12 / 2, 156e12 / 2),
    "H100": (3.35e12, 132 * 128 * 1.98e9, 67e12 / 2, 495e12 / 2),
    "H200": (4.8e12, 132 * 128 * 1.98e9, 67e12 / 2, 495e12 / 2),
}
_TILE, _CHANNELS = 16, 32  # of a tile: its edges, its channels
_KNOTS = 70  # of a table, as many as the engine places
_L2 = 2  # times the bandwidth of DRAM
_TF32_PRODUCTS = 3


def costs(case: ConvCase, hidden: int) -> dict[str, dict[str, float]]:
    """An edge's bytes of DRAM, L2 and L1, multiply-adds, and those of tensor cores, for each variant."""
    problem = case.problem()
    w, x, out = problem.dim_w, problem.dim_x, problem.dim_out / case.neighbours
    arithmetic = 0
    for path in problem.paths:
        terms, entries = cg_counts(path.l1, path.l2, path.l3)
        arithmetic += 3 * terms + path.mul * (4 * (2 * path.l1 + 1) + 3 * entries)
    product = hidden * w
    rows = 4 * (2 * x + 2 * out)  # of features and their gradients, from L2; of sums once a node
    dram = 4 * (2 * problem.dim_y + 2 * out) + 16
    groups = Table(problem, largest=HIDDEN_GROUP).count_groups
    return {
        # w written and read, read again with its gradient written, that read: 5 W; h and its gradient
        "separate": {
            "dram": dram + 4 * (5 * w + 2 * hidden), "l2": rows + 4 * 5 * w, "l1": rows + 4 * 5 * w, "fma": arithmetic,
            "tensor": _TF32_PRODUCTS * 2 * product,
        },
        # h read three times, its gradient written by each group and summed
        "hidden": {
            "dram": dram + 4 * hidden * (3 + 2 * groups), "l2": rows + 4 * hidden * (3 + 2 * groups),
            "l1": rows + 4 * (4 * product / _TILE + 3 * hidden * w / _CHANNELS), "fma": arithmetic,
            "tensor": _TF32_PRODUCTS * 4 * product,
        },
        # six rows four times, a multiply-add each
        "table": {
            "dram": dram + 4 * 6 * (3 + 2 * groups), "l2": rows, "l1": rows + 4 * 24 * w, "fma": arithmetic + 24 * w,
            "tensor": 0.0,
        },
    }  # fmt: skip


def seconds(cost: dict[str, float], device: str) -> tuple[float, str]:
    """(of an edge, what takes them)"""
    dram, l1, fma, tensor = DEVICES[device]
    parts = {
        "DRAM": cost["dram"] / dram,
        "L2": cost["l2"] / (_L2 * dram),
        "L1": cost["l1"] / l1,
        "FMA": cost["fma"] / fma,
        "tensor cores": cost["tensor"] / tensor,
    }
    slowest = max(parts, key=lambda part: parts[part])
    return parts[slowest], slowest


def table() -> str:
    """Everything as Markdown."""
    lines = [
        "# Radial weights on a GPU: three variants, counted", "",
        "Made by `python bench/radial_variants.py`, whose text says what is counted; nothing here is measured.", "",
        "| case | variant | DRAM, bytes an edge | L2 | L1 | FMA | tensor cores, FMA | " + " | ".join(DEVICES) + " |",
        "|---" * (7 + len(DEVICES)) + "|",
    ]  # fmt: skip
    for name, hidden in HIDDEN.items():
        case = CASES[name]
        assert isinstance(case, ConvCase)
        found = costs(case, hidden)
        best = {device: min(found, key=lambda variant: seconds(found[variant], device)[0]) for device in DEVICES}
        for variant, cost in found.items():
            times = []
            for device in DEVICES:
                time, bound = seconds(cost, device)
                text = f"{1e9 * time:.2f} ns ({bound})"
                times.append(f"**{text}**" if best[device] == variant else text)
            numbers = [f"{cost[part]:,.0f}" for part in ("dram", "l2", "l1", "fma", "tensor")]
            lines.append(f"| {name} | {variant} | " + " | ".join([*numbers, *times]) + " |")
    return "\n".join(lines) + "\n"


def measured(case: ConvCase, hidden: int) -> dict[str, dict[str, float]]:
    """Milliseconds on the GPU by mode and variant, float32; gradients of x, Y and h or the table's coefficients."""
    problem, graph = case.problem(), Graph(*(t.cuda() for t in case.graph()))
    x, y, w, cotangent = (t.detach().cuda() for t in case.tensors(torch.float32))
    h, matrix = torch.randn(len(w), hidden, device="cuda"), torch.randn(hidden, problem.dim_w, device="cuda")
    coefficients, table = torch.randn(len(w), 6, device="cuda"), torch.randn(3 * _KNOTS, problem.dim_w, device="cuda")
    first = 3 * torch.randint(0, _KNOTS - 1, (len(w),), device="cuda")
    leaves = {"x": x, "y": y, "h": h, "coefficients": coefficients}
    leaves = {name: tensor.requires_grad_() for name, tensor in leaves.items()}
    graph_of = {"matrix": matrix, "graph": graph, "problem": problem}
    functions = {
        "separate": ("h", lambda x, y, h: conv(x, y, h @ matrix, graph, problem)),
        "table": ("coefficients", lambda x, y, c: conv_of_table(x, y, c, table, first, graph, problem)),
    } | {
        f"hidden {precision}": ("h", partial(_of_hidden, **graph_of, precision=precision))
        for precision in ("ieee", "tf32x3", "tf32")
    }  # fmt: skip
    calls = {
        name: derivatives(function, [leaves["x"], leaves["y"], leaves[last]], cotangent, twice=False)
        for name, (last, function) in functions.items()
    }
    found = {}
    for mode in next(iter(calls.values())):
        for modes in calls.values():
            modes[mode].run()  # compiles
        timings = interleaved({name: modes[mode].run for name, modes in calls.items()}, "cuda", budget=20.0)
        found[mode] = {name: 1e3 * timing.median for name, timing in timings.items()}
    return found


def _of_hidden(x: Tensor, y: Tensor, h: Tensor, **rest: Any) -> Tensor:
    return conv_of_hidden(x, y, h, **rest)


def main() -> None:
    """Print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument("--measure", type=Path, help="time the variants on a GPU and write the times to this file")
    arguments = parser.parse_args()
    if arguments.measure:
        times = {name: measured(CASES[name], hidden) for name, hidden in HIDDEN.items()}
        write_text(arguments.measure, json.dumps({"machine": machine("cuda"), "milliseconds": times}, indent=1) + "\n")
        print(json.dumps(times, indent=1))
        return
    print(table())
    if arguments.markdown:
        arguments.markdown.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
