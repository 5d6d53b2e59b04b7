"""What the hand-written CUDA kernels take, and what bounds those of conv on the shapes of models.

    python bench/cuda_kernels.py                    what the installed library holds: registers, spills, shared memory
    python bench/cuda_kernels.py --csv bench/results/cuda-resources.csv --markdown bench/results/cuda-kernels.md

The second writes both tables. Registers are ptxas's; warps is how many a multiprocessor of 64 Ki registers then holds.

Bounds are counted, not measured: for each launch the bytes that DRAM, L2 and L1 must move and the multiply-adds of
float32, an edge; the slowest of the four at an H100's data-sheet peak is the time of that launch (peaks as in
bench/radial_variants.py), and launches follow each other. L1 moves 128 bytes for each line that a load of a warp
touches: irreps lie channel by channel, so that lanes read 2l + 1 numbers apart. Weights come from DRAM, features and
the gradients of sums from L2.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nequip_fast
from bench.problems import CASES, ConvCase
from bench.radial_variants import DEVICES
from bench.roofline import cg_counts
from nequip_fast.files import write_text
from nequip_fast.ops.paths import Path as ConvPath

SHAPES = (
    "conv-S", "conv-M", "conv-L", "conv-XL", "conv-SevenNet-0", "conv-l3i5", "conv-32-l2-parity", "conv-64-l3-parity",
    "conv-mace-large",
)  # fmt: skip
COLUMNS = "kernel", "type", "group", "channels", "mode", "sm", "registers", "spilled_bytes", "shared_bytes", "warps"
MODES = "plain", "tangent", "table"  # of csrc/cuda/conv/group_kernels.h
_DEVICE, _L2 = "H100", 2
_LANES, _LINE = 32, 128
_REGISTERS, _MOST_WARPS = 65536, 64


# --- what was compiled ---


def cuobjdump() -> str:
    """The path of NVIDIA's tool, of a CUDA toolkit or of Triton.

    Raises:
        FileNotFoundError: there is none.
    """
    if found := shutil.which("cuobjdump") or shutil.which("cuobjdump", path="/usr/local/cuda/bin"):
        return found
    try:
        import triton
    except ImportError:
        raise FileNotFoundError("no cuobjdump: it is part of the CUDA toolkit, and of triton") from None
    return str(triton.knobs.nvidia.cuobjdump.path)


def resources(binaries: Sequence[Path]) -> list[dict[str, Any]]:
    """A row (:data:`COLUMNS`) for each kernel and architecture in libraries or object files."""
    dumps = [
        subprocess.run([cuobjdump(), "-res-usage", str(binary)], check=True, capture_output=True, text=True).stdout
        for binary in binaries
    ]
    text = "\n".join(dumps)
    text = subprocess.run(["c++filt"], input=text, check=True, capture_output=True, text=True).stdout
    rows, sm = [], 0
    for line in text.splitlines():
        if found := re.search(r"arch = sm_(\d+)", line):
            sm = int(found[1])
        elif found := re.search(r"Function (.+):\s*$", line):
            name = found[1]
        elif "REG:" in line:
            usage = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            rows.append(
                {
                    **_named(name),
                    "sm": sm,
                    "registers": usage["REG"],
                    "spilled_bytes": usage["STACK"] + usage["LOCAL"],
                    "shared_bytes": usage["SHARED"],
                    "warps": _warps(usage["REG"]),
                }
            )
    return sorted(rows, key=lambda row: [str(row[column]) for column in COLUMNS[:6]])


def _named(function: str) -> dict[str, str]:
    """Kernel, type, and for conv the group (l1, most l2, most l3) and channels a lane, of a demangled name."""
    group = r"nf::cuda::Group<(\d), (\d), (\d), (true|false)>"
    if found := re.search(rf"nf::cuda::(\w+)<(\w+), {group}, (\d), \(nf::cuda::Mode\)(\d)>", function):
        name, kind, l1, l2, l3, mixed, channels, mode = found.groups()
        degrees = f"{l1} {l2} {l3}{' mixed' if mixed == 'true' else ''}"
        return {
            "kernel": f"conv {name}",
            "type": kind,
            "group": degrees,
            "channels": channels,
            "mode": MODES[int(mode)],
        }
    found = re.search(r"(\w+)<([^()]*)>\(", function)
    name, arguments = found.groups() if found else (function, "")
    kinds = [part for part in arguments.split(", ") if part in ("float", "double")]
    rest = [part for part in arguments.split(", ") if part and part not in kinds]
    return {"kernel": name, "type": " ".join(kinds), "group": " ".join(rest), "channels": "", "mode": ""}


def _warps(registers: int) -> int:
    """That fit a multiprocessor, which gives registers in units of 256 a warp and starts blocks of four warps."""
    of_a_warp = (registers * _LANES + 255) // 256 * 256
    return min(_MOST_WARPS, _REGISTERS // of_a_warp // 4 * 4)


# --- what bounds it ---


@dataclass(frozen=True)
class Cost:
    """An edge's share of a launch: bytes of DRAM, L2, L1, and multiply-adds."""

    dram: float
    l2: float
    l1: float
    fma: float

    def seconds(self) -> tuple[float, str]:
        """(time, what takes it)"""
        dram, l1, fma, _ = DEVICES[_DEVICE]
        parts = {
            "DRAM": self.dram / dram, "L2": self.l2 / (_L2 * dram), "L1": self.l1 / l1, "FMA": self.fma / fma,
        }  # fmt: skip
        slowest = max(parts, key=lambda part: parts[part])
        return parts[slowest], slowest


def launches(case: ConvCase) -> Iterator[tuple[int, int, list[ConvPath]]]:
    """(l1, mul, paths) of each: the paths from one irrep of x."""
    by_irrep: dict[tuple[int, int], list[ConvPath]] = {}
    for path in case.problem().paths:
        by_irrep.setdefault((path.x, path.l1), []).append(path)
    for (_, l1), paths in by_irrep.items():
        yield l1, paths[0].mul, paths


def costs(l1: int, mul: int, paths: list[ConvPath], neighbours: int) -> dict[str, Cost]:
    """Of ``gather`` and ``gradient``, in float32 with many edges (csrc/cuda/conv/group_kernels.h)."""
    k = 2 if mul > _LANES else 1
    warps = -(-mul // (_LANES * k))
    n1 = 2 * l1 + 1
    degrees = {path.l2 for path in paths}
    harmonics = sum(2 * l2 + 1 for l2 in degrees)
    out = sum(2 * path.l3 + 1 for path in paths)
    forward = reverse = 0
    for path in paths:
        terms, entries = cg_counts(path.l1, path.l2, path.l3)
        shared = 2 * path.l2 + 1 + terms
        forward += shared + k * (n1 + entries)
        reverse += shared + k * (4 * n1 + 2 * entries) + entries + terms
    w, indices = 4 * mul * len(paths), 16
    gathered_x, gathered_g, kept_x, kept_out = (
        4 * mul * n1, 4 * mul * out, 4 * mul * n1 / neighbours, 4 * mul * out / neighbours,
    )  # fmt: skip
    lines = k * n1**2 + k * len(paths) + harmonics
    lines_back = k * sum((2 * path.l3 + 1) ** 2 for path in paths) + 2 * k * len(paths) + harmonics
    return {
        "forward": Cost(
            w + 4 * harmonics + indices + kept_out, w + gathered_x + kept_out, warps * lines * _LINE,
            warps * _LANES * forward,
        ),
        "gradient": Cost(
            2 * w + 12 * harmonics + indices + 2 * kept_x, 2 * w + gathered_g, warps * lines_back * _LINE,
            warps * _LANES * reverse,
        ),
    }  # fmt: skip


def markdown(rows: list[dict[str, Any]], toolkit: str) -> str:
    """The bounds, with the warps that registers allow, as Markdown."""
    lines = [
        "# CUDA kernels of conv: what bounds them, counted", "",
        "Made by `python bench/cuda_kernels.py`, whose text says what is counted; nothing here is measured. Kernels",
        f"compiled by {toolkit}; all of them: `cuda-resources.csv`.", "",
        f"Time of an edge on an {_DEVICE} at data-sheet peaks, float32, and what takes most of it:", "",
        "| shape | launches | forward | gradient | DRAM alone, forward | gradient |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in SHAPES:
        case = CASES[name]
        assert isinstance(case, ConvCase)
        every = [costs(*launch, case.neighbours) for launch in launches(case)]
        cells = []
        for what in ("forward", "gradient"):
            times = [cost[what].seconds() for cost in every]
            by_part: dict[str, float] = {}
            for seconds, part in times:
                by_part[part] = by_part.get(part, 0) + seconds
            worst = max(by_part, key=lambda part: by_part[part])
            cells.append(f"{sum(t for t, _ in times) * 1e9:.2f} ns ({worst})")
        dram = [sum(cost[what].dram for cost in every) / DEVICES[_DEVICE][0] * 1e9 for what in ("forward", "gradient")]
        lines.append(f"| {name} | {len(every)} | {cells[0]} | {cells[1]} | {dram[0]:.2f} ns | {dram[1]:.2f} ns |")
    lines += ["", "Registers and warps a multiprocessor, sm_90, float32, weights given:", ""]
    lines += ["| group (l1, most l2, most l3) | channels a lane | forward | gradient |", "|---|---|---|---|"]
    table = {(row["group"], row["channels"], row["kernel"]): row for row in rows if _is_plain(row)}
    for group, channels, kernel in sorted(table):
        if kernel != "conv gather":
            continue
        cells = [
            f"{row['registers']} registers, {row['warps']} warps" + (f", {spilled} B spilled" if spilled else "")
            for row in (table[group, channels, "conv gather"], table[group, channels, "conv gradient"])
            for spilled in (int(row["spilled_bytes"]),)
        ]
        lines.append(f"| {group} | {channels} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _is_plain(row: dict[str, Any]) -> bool:
    return (str(row["sm"]), row["type"], row["mode"]) == ("90", "float", "plain")


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    installed = Path(nequip_fast.__file__).parent / "_C.so"
    parser.add_argument("--binaries", type=Path, nargs="+", default=[installed], help="a library, or object files")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows = resources(arguments.binaries)
    if not rows:
        sys.exit(f"no CUDA kernels in {', '.join(map(str, arguments.binaries))}: built without nvcc")
    if arguments.csv:
        with arguments.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    else:
        for row in rows:
            print(", ".join(f"{column} {value}" for column, value in row.items()))
    if arguments.markdown:
        write_text(arguments.markdown, markdown(rows, _toolkit()))


def _toolkit() -> str:
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"V(\d+\.\d+\.\d+)", text)
    return f"nvcc {found[1] if found else '(unknown version)'}"


if __name__ == "__main__":
    main()
