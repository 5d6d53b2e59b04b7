"""What compiling found out, in words and in a figure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from nequip_fast.engine.program import Program, RadialTable
from nequip_fast.engine.radial import hermite, radial_function
from nequip_fast.errors import InputError
from nequip_fast.plotting import new_figure, save_figure

_CURVES, _INTERVALS, _EACH = 12, 256, 32  # of a layer's functions that are drawn; points: so many in so many parts


def sizes(program: Program) -> dict[str, int]:
    """Paths of all convolutions, and numbers that the engine keeps."""
    return {"paths": sum(len(layer.paths) for layer in program.layers), "numbers": program.lists()[1].numel()}


def summary(report: Mapping[str, Any]) -> str:
    """The report of a :class:`~nequip_fast.engine.Potential` in a few lines."""
    lines = []
    if "table_errors" in report:
        intervals = ", ".join(map(str, report["intervals"]))
        lines.append(f"radial tables of {intervals} intervals, error {max(report['table_errors']):.1e}")
    elif "ranks" in report:
        ranks = ", ".join(map(str, report["ranks"]))
        lines.append(f"radial networks of rank {ranks}, error {max(report['rank_errors']):.1e}")
    else:
        lines.append("radial networks as they are")
    if "passes" in report:
        lines.append("what each pass adds to the largest deviation, eV/atom and eV/Å; paths and numbers after it:")
    for name, part in report.get("passes", {}).items():
        size = report["sizes"].get(name)
        counts = f"{size['paths']:5d} {size['numbers']:11,d}" if size else ""
        lines.append(f"  {name:9s} energy {part['energy']:.1e}, force {part['force']:.1e}  {counts}".rstrip())
    if "deviation" in report:
        found = report["deviation"]
        lines.append(
            f"beside the model, at most: energy {found['energy']:.1e} eV/atom, force {found['force']:.1e} eV/Å "
            f"(largest force {found['largest_force']:.2g}), stress {found['stress']:.1e} eV/Å³"
        )
    return "\n".join(lines)


def plot_radial(program: Program, path: str | os.PathLike[str]) -> None:
    """A row for each layer: some of its radial weights against r/r_c, and the error of their tables.

    Raises:
        InputError: the program has no tables.
    """
    tables = [layer.radial for layer in program.layers if isinstance(layer.radial, RadialTable)]
    if not tables:
        raise InputError('there are no radial tables to plot: the potential was compiled with radial="exact"')
    x = torch.linspace(0, 1, _INTERVALS * _EACH + 1, dtype=torch.float64)[1:]
    figure, rows = new_figure(2, (9, 2.3 * len(tables)), rows=len(tables))
    for k, (table, (curves, errors)) in enumerate(zip(tables, rows, strict=True)):
        exact = radial_function(program.basis, table.network)(x.unsqueeze(1))
        found = hermite(table.knots, table.values, x)
        few = torch.linspace(0, exact.shape[1] - 1, min(_CURVES, exact.shape[1])).long()
        curves.plot(x, exact[:, few], lw=0.8)
        curves.set_ylabel(f"layer {k}: w")
        largest = (found - exact).abs().max(1).values.view(_INTERVALS, _EACH).max(1).values  # it is zero at every knot
        errors.semilogy(x[_EACH // 2 :: _EACH], largest.clamp(min=1e-18), lw=0.8, color="C3")
        errors.axhline(float(exact.abs().max()), color="0.6", lw=0.8, ls="--", label="largest |w|")
        errors.set_ylabel("largest |table − exact|")
    rows[0][1].legend(frameon=False)
    for axis in rows[-1]:
        axis.set_xlabel("r / r_c")
    save_figure(figure, path)
