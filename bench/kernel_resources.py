"""What Triton's kernels take of a GPU: registers, spills, shared memory, size of the code. Needs no GPU.

    python bench/kernel_resources.py [--cases conv-M harmonics-l3] [--csv bench/results/kernel-resources.csv]

Each kernel of each case is compiled for sm_80 (A100), sm_90 (H100, H200) and sm_100 (B200), as one call of the
operator, its derivative and the derivative of that would launch it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench.engine_gpu import engine_of
from bench.problems import CASES, ConvCase, HarmonicsCase, ModuleCase
from bench.radial_variants import HIDDEN
from nequip_fast import nn, o3
from nequip_fast.kernels import operators, tuning
from nequip_fast.kernels.tuning import Tile
from nequip_fast.ops import ConvProblem, Graph

ARCHITECTURES = (80, 90, 100)


@dataclass(frozen=True)
class EngineCase:
    """What the engine's second layer runs besides the convolution and the gate."""

    model: str  # a preset


KINDS = {
    name: case
    for name, case in CASES.items()
    if case.kind in ("conv", "harmonics", "gate", "product")
    or (case.kind == "self-connection" and name.endswith("-1000"))
}
KINDS |= {"engine-M": EngineCase("M"), "engine-L": EngineCase("L")}
_TYPES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64"}
_COLUMNS = "registers", "spilled_bytes", "shared_bytes", "ptx_bytes", "seconds"
_OPTIONS = ("num_warps", "num_stages")


@dataclass(frozen=True)
class Launch:
    """One kernel as an operator would run it."""

    what: str
    part: int  # of those that share the work
    kernel: Any
    arguments: tuple[Any, ...]
    fixed: dict[str, Any]
    tiles: list[Tile]  # the first by rule of thumb

    @property
    def constants(self) -> dict[str, Any]:
        """All that it is compiled for."""
        return self.fixed | self.tiles[0]

    @property
    def problem(self) -> str:
        """What a table of block sizes calls it."""
        return tuning.Launch(self.kernel, int, self.arguments, self.fixed, self.tiles).problem


def launches(
    case: ConvCase | HarmonicsCase | ModuleCase | EngineCase, dtype: torch.dtype = torch.float32
) -> list[Launch]:
    """Of the value, the first and the second derivatives, each kernel once."""
    if isinstance(case, ConvCase):
        calls = _conv_calls(case, dtype)
    elif isinstance(case, EngineCase):
        calls = _engine_calls(case, dtype)
    elif isinstance(case, HarmonicsCase):
        calls = _calls_with_vjp(
            "spherical_harmonics", case.edges, 3, (case.l_max + 1) ** 2, dtype, *_harmonics_arguments(case)
        )
    elif case.kind != "gate":
        calls = _product_calls(case, dtype)
    else:
        problem = case.build(_Ours).problem
        calls = _calls_with_vjp("gate", case.rows, problem.dim_in, problem.dim_out, dtype, problem.text)
    found: list[Launch] = []
    for what, call in calls:
        with _recorded() as recorded:
            call()
        for kernel, *rest in recorded:
            part = sum((launch.what, launch.kernel) == (what, kernel) for launch in found)
            found.append(Launch(what, part, kernel, *rest))
    seen = {repr((launch.kernel, sorted(launch.constants.items()))): launch for launch in reversed(found)}
    return list(reversed(seen.values()))


def resources_apart(launch: Launch, architecture: int) -> dict[str, Any]:
    """:func:`resources` by another process, as a compiler may abort; then nothing but how that is called."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writer, json.dumps(resources(launch, architecture)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return json.loads(found) if found else dict.fromkeys(_COLUMNS, "the compiler aborts")


def resources(launch: Launch, architecture: int) -> dict[str, Any]:
    """What the compiled kernel takes."""
    names = launch.kernel.arg_names
    tensors = dict(zip(names, launch.arguments, strict=False))
    signature = dict.fromkeys(names, "constexpr")
    signature |= {name: _TYPES[t.dtype] if isinstance(t, torch.Tensor) else "i32" for name, t in tensors.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    constants = {(names.index(name),): value for name, value in launch.constants.items() if name not in _OPTIONS}
    options = {name: value for name, value in launch.constants.items() if name in _OPTIONS}
    started = time.perf_counter()
    compiled = triton.compile(
        ASTSource(launch.kernel, signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", architecture, 32),
        options=options,
    )
    seconds = time.perf_counter() - started
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    numbers = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "registers": numbers["REG"],
        "spilled_bytes": numbers["STACK"] + numbers["LOCAL"],
        "shared_bytes": compiled.metadata.shared,
        "ptx_bytes": len(compiled.asm["ptx"]),
        "seconds": round(seconds, 1),
    }


class _Ours:
    """The namespace that a case builds its module from."""

    nn, o3 = nn, o3


@contextmanager
def _recorded() -> Iterator[list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tile]]]]:
    """What would be launched, in a list, instead of launching it."""
    recorded: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tile]]] = []

    def record(kernel: Any, programs: Any, *arguments: Any, tiles: list[Tile], **constants: Any) -> None:
        recorded.append((kernel, arguments, constants, tiles))

    originals = [module.launch for module in operators.MODULES]
    for module in operators.MODULES:
        module.launch = record
    try:
        yield recorded
    finally:
        for module, original in zip(operators.MODULES, originals, strict=True):
            module.launch = original


def _conv_calls(case: ConvCase, dtype: torch.dtype) -> list[tuple[str, Any]]:
    problem, graph = case.problem(), Graph(*(torch.empty_like(t, device="meta") for t in case.graph()))
    shapes = (graph.num_nodes, problem.dim_x), (graph.num_edges, problem.dim_y), (graph.num_edges, problem.dim_w)
    p = [torch.empty(shape, dtype=dtype, device="meta") for shape in shapes]
    g = torch.empty(graph.num_nodes, problem.dim_out, dtype=dtype, device="meta")
    rest = *graph, problem.text
    calls = [
        ("forward", lambda: operators.conv.triton_conv._init_fn(*p, *rest)),
        ("gradient", lambda: operators.conv.triton_conv_gradient._init_fn(*p, g, *rest, True, True, True)),
        ("tangent", lambda: operators.conv.triton_conv_tangent._init_fn(*p, *p, *rest)),
        (
            "gradient tangent",
            lambda: operators.conv.triton_conv_gradient_tangent._init_fn(*p, g, *p, *rest, True, True, True),
        ),
    ]
    if case.name in HIDDEN:
        calls += _calls_with_formed_weights(problem, graph, *p[:2], g, HIDDEN[case.name])
    return calls


def _calls_with_formed_weights(
    problem: ConvProblem, graph: Graph, x: Tensor, y: Tensor, g: Tensor, hidden: int
) -> list[tuple[str, Any]]:
    """Of the last hidden layer, in both precisions, and of a table."""
    first = torch.empty(graph.num_edges, dtype=torch.int64, device="meta")
    variants = [
        (f"hidden {precision}", hidden, hidden, None, precision) for precision in ("ieee", "tf32x3")
    ] + [("table", 6, 210, first, "ieee")]  # fmt: skip
    calls = []
    for name, width, rows, row, precision in variants:
        h, matrix = x.new_empty(graph.num_edges, width), x.new_empty(rows, problem.dim_w)
        rest = *graph, problem.text, precision
        calls += [
            (f"{name} forward", partial(operators.conv.triton_conv_of_rows._init_fn, x, y, h, matrix, row, *rest)),
            (
                f"{name} gradient",
                partial(
                    operators.conv.triton_conv_of_rows_gradient._init_fn, x, y, h, matrix, row, g, *rest,
                    True, True, True,
                ),
            ),
        ]  # fmt: skip
    return calls


def _product_calls(case: ModuleCase, dtype: torch.dtype) -> list[tuple[str, Any]]:
    """The second derivatives launch the same kernels again."""
    problem = case.build(_Ours).problem
    rows, weights = case.rows, 1 if case.kind == "self-connection" else case.rows
    shapes = (rows, problem.dim_x), (rows, problem.dim_y), (weights, problem.dim_w)
    p = [torch.empty(shape, dtype=dtype, device="meta") for shape in shapes]
    g = torch.empty(rows, problem.dim_out, dtype=dtype, device="meta")
    product = operators.tensor_product
    return [
        ("forward", lambda: product.triton_tensor_product._init_fn(*p, problem.text)),
        (
            "gradient",
            lambda: product.triton_tensor_product_gradient._init_fn(*p, g, problem.text, True, True, True),
        ),
    ]


def _engine_calls(case: EngineCase, dtype: torch.dtype) -> list[tuple[str, Any]]:
    layer = engine_of(case.model, torch.device("cpu")).network.layers[1]
    x, knots = (torch.empty(size, dtype=torch.float64, device="meta") for size in (1_000, len(layer.convolution.knots)))
    single, precision = dtype == torch.float32, "tf32x3" if dtype == torch.float32 else "ieee"
    calls = [("hermite", lambda: operators.hermite.triton_hermite._init_fn(x, knots, single))]
    for name, maps in (("send", layer.send), ("mix", layer.mix), ("self connection", layer.self_connection)):
        for what, weights, direction in (
            (name, maps.weights, maps.there),
            (f"{name} reverse", maps.transposed, maps.back),
        ):
            rows = torch.empty(1_000, direction.source.width, dtype=dtype, device="meta")
            counts = [1_000] + [0] * (len(weights) - 1)
            meta = torch.empty_like(weights, dtype=dtype, device="meta")
            rest = rows, meta, counts, direction.target.width, direction.text, precision
            calls.append((what, partial(operators.linear.triton_linear._init_fn, *rest)))
    return calls


def _harmonics_arguments(case: HarmonicsCase) -> tuple[Any, ...]:
    return list(range(case.l_max + 1)), "component", True


def _calls_with_vjp(
    name: str, rows: int, dim_in: int, dim_out: int, dtype: torch.dtype, *rest: Any
) -> list[tuple[str, Any]]:
    x, g = (torch.empty(rows, dim, dtype=dtype, device="meta") for dim in (dim_in, dim_out))
    module, operator = getattr(operators, name), f"triton_{name}"
    return [
        ("forward", lambda: getattr(module, operator)._init_fn(x, *rest)),
        ("gradient", lambda: getattr(module, f"{operator}_vjp")._init_fn(x, g, *rest)),
        ("gradient tangent", lambda: getattr(module, f"{operator}_vjp_grad")._init_fn(x, g, x, *rest)),
    ]


def main() -> None:
    """Compile, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(KINDS), choices=KINDS, metavar="CASE", help=", ".join(KINDS))
    parser.add_argument("--architectures", nargs="+", type=int, default=list(ARCHITECTURES))
    parser.add_argument("--csv", type=Path, help="write the rows to this file; its rows of other cases stay")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.cases:
        for launch in launches(KINDS[name]):
            for architecture in arguments.architectures:
                key = {
                    "triton": triton.__version__,
                    "case": name,
                    "kernel": launch.kernel.__name__,
                    "of": launch.what,
                    "part": launch.part,
                }
                row = {**key, "sm": architecture, **resources_apart(launch, architecture)}
                rows.append(row)
                print(", ".join(f"{column} {value}" for column, value in row.items()), flush=True)
        if arguments.csv:
            write(arguments.csv, rows)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """These rows, and those of the file that are of other cases or versions."""
    new = {tuple(str(row[column]) for column in ("triton", "case", "sm")) for row in rows}
    kept = [row for row in (read(path) if path.is_file() else []) if (row["triton"], row["case"], row["sm"]) not in new]
    every = sorted([*kept, *rows], key=lambda row: (row["triton"], list(KINDS).index(row["case"]), int(row["sm"])))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(every)


if __name__ == "__main__":
    main()
