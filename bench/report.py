"""Results as text: geometric means against the targets for the terminal, all cases as Markdown for the repository.

python bench/report.py bench/results/cpu.json README.md    # put the means into the README, between its two marks
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.calls import BACKWARD, DOUBLE_BACKWARD, FORWARD
from bench.peers import OURS
from bench.problems import CASES

Row = dict[str, Any]

_BEGIN, _END = "<!-- speed: written by bench/report.py -->", "<!-- end of speed -->"


@dataclass(frozen=True)
class Target:
    """What the project asks of a kind of case against the best of a family of peers."""

    family: str
    mean: float | None = None
    least: float | None = None


TARGETS = {
    ("conv", FORWARD): Target("e3nn", mean=40, least=5),
    ("conv", BACKWARD): Target("e3nn", mean=25, least=5),
    ("conv", DOUBLE_BACKWARD): Target("e3nn", mean=20, least=5),
    ("self-connection", FORWARD): Target("e3nn", mean=3),
    ("self-connection", BACKWARD): Target("e3nn", mean=3),
    ("self-connection", DOUBLE_BACKWARD): Target("e3nn", mean=3),
    ("harmonics", BACKWARD): Target("sphericart", mean=1),
}
ROOF = 0.35  # of the binding roof, conv forward

_HEADS = {
    "conv": "Convolution: gather, product, sum over receivers",
    "self-connection": "Self-connection: FullyConnectedTensorProduct with 32 attributes, atoms of two types",
    "self-connection-distinct": "The same with attributes of each atom its own, as no such model has them",
    "product": "Tensor products without a graph",
    "linear": "Linear",
    "gate": "Gate",
    "radial-network": "Radial networks: perceptrons without biases, FullyConnectedNet",
    "harmonics": "Spherical harmonics",
    "model": "Whole models: energy and forces",
}


def ratio(row: Row, family: str) -> float | None:
    """How many times longer the fastest contender of the family takes."""
    best = row["best"].get(family)
    return row["times_slower"][best]["median"] if best else None


@dataclass(frozen=True)
class Mean:
    """Geometric mean of the ratios to the best of a family, and the lowest case."""

    kind: str
    mode: str
    dtype: str
    family: str
    cases: int
    mean: float
    lowest: float
    lowest_case: str

    @property
    def verdict(self) -> str:
        """Against the target, if there is one."""
        target = TARGETS.get((self.kind, self.mode))
        if target is None or target.family != self.family:
            return ""
        parts = []
        for name, value, wanted in (("mean", self.mean, target.mean), ("lowest", self.lowest, target.least)):
            if wanted is not None:
                parts.append(f"{name} ≥ {wanted:g}× {'met' if value >= wanted else 'MISSED'}")
        return ", ".join(parts)


def means(rows: Sequence[Row]) -> list[Mean]:
    """One per kind, mode, dtype and family, in the order of the rows."""
    groups: dict[tuple[str, str, str, str], list[tuple[float, str]]] = {}
    for row in rows:
        for family in row["best"]:
            key = row["kind"], row["mode"], row["dtype"], family
            groups.setdefault(key, []).append((ratio(row, family) or 0.0, row["case"]))
    return [
        Mean(*key, len(values), exp(sum(log(value) for value, _ in values) / len(values)), *min(values))
        for key, values in groups.items()
    ]


def roof_misses(rows: Sequence[Row]) -> list[str]:
    """Convolutions whose forward pass stays below :data:`ROOF`."""
    return [
        f"{row['case']} {row['dtype']}: {max(roof['fma_share'], roof['bytes_share']):.0%} of {roof['binding']}"
        for row in rows
        if row["mode"] == FORWARD
        and (roof := row.get("roofline"))
        and max(roof["fma_share"], roof["bytes_share"]) < ROOF
    ]


def _mean_cells(rows: Sequence[Row]) -> list[list[str]]:
    cells = [["kind", "mode", "dtype", "against", "cases", "geometric mean", "lowest", "target"]]
    for m in means(rows):
        against = f"best {m.family}"
        lowest = f"{m.lowest:.3g}× ({m.lowest_case})"
        cells.append([m.kind, m.mode, m.dtype, against, str(m.cases), f"{m.mean:.3g}×", lowest, m.verdict])
    return cells


def _left_out(rows: Sequence[Row]) -> list[str]:
    """Contender and reason, with the cases it concerns, or none where it is all of them."""
    cases: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in row["absent"].items():
            names = cases.setdefault((name, reason), [])
            if row["case"] not in names:
                names.append(row["case"])
    return [f"{name}: {reason} ({', '.join(names)})" for (name, reason), names in cases.items()]


def summary(report: dict[str, Any]) -> str:
    """For the terminal: times by case, then means, roofs missed, and what was left out."""
    rows = report["rows"]
    lines = [_aligned(_case_cells(rows, contenders_of(rows))), "", _aligned(_mean_cells(rows))]
    if misses := roof_misses(rows):
        lines += ["", f"conv forward below {ROOF:.0%} of the binding roof:", *(f"  {miss}" for miss in misses)]
    if notes := _left_out(rows):
        lines += ["", "left out:", *(f"  {note}" for note in notes)]
    return "\n".join(lines)


def contenders_of(rows: Sequence[Row]) -> list[str]:
    """Peers that were measured in any of the rows."""
    return list(dict.fromkeys(name for row in rows for name in row["times_slower"]))


def _case_cells(rows: Sequence[Row], peers: Sequence[str]) -> list[list[str]]:
    families = list(dict.fromkeys(family for row in rows for family in row["best"]))
    cells = [["case", "mode", "dtype", f"{OURS}, ms", *peers, *(f"best {f}" for f in families)]]
    for row in rows:
        slower = row["times_slower"]
        ratios = ["{median:.3g}× [{low:.3g}–{high:.3g}]".format(**slower[p]) if p in slower else "–" for p in peers]
        best = [f"{value:.3g}×" if (value := ratio(row, f)) else "–" for f in families]
        cells.append([row["case"], row["mode"], row["dtype"], f"{row['milliseconds'][OURS]:.3g}", *ratios, *best])
    return cells


def _roof_cells(rows: Sequence[Row]) -> list[list[str]]:
    cells = [["case", "mode", "dtype", "µs/edge", "GFMA", "MB", "share of FMA/s", "share of bytes/s", "binds"]]
    for row in rows:
        if roof := row.get("roofline"):
            per_edge = 1e3 * row["milliseconds"][OURS] / roof["edges"]
            cells.append(
                [row["case"], row["mode"], row["dtype"], f"{per_edge:.3g}", f"{roof['gfma']:.3g}",
                 f"{roof['megabytes']:.3g}", f"{roof['fma_share']:.0%}", f"{roof['bytes_share']:.0%}", roof["binding"]]
            )  # fmt: skip
    return cells


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def _table(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = cells
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(line)} |" for line in body)
    yield ""


def markdown(report: dict[str, Any]) -> str:
    """All results; written beside the JSON."""
    rows, machine = report["rows"], report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# Times beside the peers'",
        "",
        "Written by `bench/run.py`; the columns are explained in [README.md](README.md).",
        "",
        f"{machine['processor']}, {machine['threads']} threads, {machine['cpu_isa']}; {versions}; {machine['date']}; "
        f"load before the run {report['load_before']:.1f}" + ("; quick sizes" if report["quick"] else ""),
        "",
    ]
    if peaks := report["peaks"]:
        rates = [f"{gigabytes(peaks, size)} at {size // 2**20} MB" for size in (4 * 2**20, 256 * 2**20)]
        fma = ", ".join(f"{value / 1e9:.0f} G/s {dtype}" for dtype, value in peaks["fma"].items())
        lines += [f"Peaks measured in the run: FMA {fma}; read / write {'; '.join(rates)}", ""]
    lines += ["## Geometric means", "", *_table(_mean_cells(rows))]
    if misses := roof_misses(rows):
        lines += [f"Conv forward below {ROOF:.0%} of the binding roof: {'; '.join(misses)}.", ""]
    for kind, head in _HEADS.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        if not of_kind:
            continue
        lines += [f"## {head}", "", *_table(_case_cells(of_kind, contenders_of(of_kind)))]
        if kind == "conv" and len(roofs := _roof_cells(of_kind)) > 1:
            lines += ["### Share of the roofline", "", *_table(roofs)]
        names = list(dict.fromkeys(row["case"] for row in of_kind))
        lines += [*(f"- `{name}`: {CASES[name].about}" for name in names), ""]
    if notes := _left_out(rows):
        lines += ["## Left out", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines)


def gigabytes(peaks: dict[str, Any], size: int) -> str:
    """Measured read / write rate at one of the sizes."""
    k = peaks["sizes"].index(size)
    return f"{peaks['read'][k] / 1e9:.0f} / {peaks['write'][k] / 1e9:.0f} GB/s"


def overview(report: dict[str, Any]) -> str:
    """The means alone, one line a kind, precision and family, one column a mode; for the README."""
    found = means(report["rows"])
    modes = list(dict.fromkeys(m.mode for m in found))
    cells = [["", "", "against", *modes]]
    for kind, dtype, family in dict.fromkeys((m.kind, m.dtype, m.family) for m in found):
        line = {m.mode: m for m in found if (m.kind, m.dtype, m.family) == (kind, dtype, family)}
        numbers = [f"{line[mode].mean:.3g}× ({line[mode].lowest:.3g}×)" if mode in line else "–" for mode in modes]
        cells.append([kind, dtype, family, *numbers])
    return "\n".join(_table(cells))


def write_overview(results: Path, readme: Path) -> None:
    """Replace what stands between the two marks of the README."""
    head, rest = readme.read_text().split(_BEGIN)
    _, tail = rest.split(_END)
    readme.write_text(f"{head}{_BEGIN}\n\n{overview(json.loads(results.read_text()))}\n{_END}{tail}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python bench/report.py RESULTS.json README.md")
    write_overview(Path(sys.argv[1]), Path(sys.argv[2]))
