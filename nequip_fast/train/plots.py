"""The learning curve and the parity plot."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nequip_fast.plotting import new_figure, save_figure

_BLUE, _ORANGE, _GREY = "#2a6fbb", "#e07b28", "#8a8a8a"


def learning_curve(
    rows: Sequence[Mapping[str, float]], path: str | os.PathLike[str], trivial: Mapping[str, float] | None = None
) -> None:
    """Loss, force error, energy error and learning rate against the epoch, on logarithmic axes.

    Args:
        rows: of metrics.csv.
        path: PNG file to write.
        trivial: ``energy_mae`` [eV/atom] and ``forces_mae`` [eV/Å] of the trivial predictor, drawn as a dashed line.
    """
    figure, axes = new_figure(3, (12, 3.6))
    epochs = [row["epoch"] for row in rows]
    axes[0].plot(epochs, [row["train_loss"] for row in rows], color=_ORANGE, label="training")
    axes[0].plot(epochs, [row["val_loss"] for row in rows], color=_BLUE, label="validation (averaged weights)")
    axes[0].set_ylabel("loss (eV²)")
    for axis, name, unit in ((axes[1], "forces", "meV/Å"), (axes[2], "energy", "meV/atom")):
        for kind, color in (("rmse", _ORANGE), ("mae", _BLUE)):
            values = [1000 * row[f"val_{name}_{kind}"] for row in rows]
            axis.plot(epochs, values, color=color, label=f"{kind.upper()}, best {min(values):.3g} {unit}")
        axis.set_ylabel(f"validation error of {'the energy' if name == 'energy' else 'forces'} ({unit})")
        if trivial and trivial.get(f"{name}_mae"):
            value = 1000 * trivial[f"{name}_mae"]
            axis.axhline(value, color=_GREY, ls="--", lw=1, label=f"trivial MAE, {value:.3g} {unit}")
    for axis in axes:
        axis.set_yscale("log")
        axis.set_xlabel("epoch")
        axis.legend(frameon=False, fontsize=8)
        axis.grid(alpha=0.25, which="both", lw=0.5)
        _plain_numbers(axis)
    rate = axes[0].twinx()
    rate.plot(epochs, [row["learning_rate"] for row in rows], color=_GREY, lw=0.8, ls=":")
    rate.set_yscale("log")
    highest = max(row["learning_rate"] for row in rows)
    rate.set_ylim(highest / 2e3, 2 * highest)  # the last steps of a cosine are as good as zero
    rate.set_ylabel("learning rate (dotted)", color=_GREY)
    rate.spines["top"].set_visible(False)
    rate.tick_params(axis="y", colors=_GREY, which="both")
    save_figure(figure, path)


def parity_plot(
    energy: tuple[NDArray[Any], NDArray[Any]],
    forces: tuple[NDArray[Any], NDArray[Any]],
    elements: NDArray[Any],
    errors: Mapping[str, float],
    path: str | os.PathLike[str],
) -> None:
    """Predicted against reference energies per atom and force components, and the force errors below.

    Args:
        energy: reference and predicted, [B], eV/atom.
        forces: reference and predicted, [N, 3], eV/Å.
        elements: symbol of each atom, [N].
        errors: of :meth:`nequip_fast.train.metrics.ErrorSums.result`, quoted in the panels.
        path: PNG file to write.
    """
    figure, axes = new_figure(3, (12.5, 4.0))
    reference, predicted = energy
    offset = float(np.mean(reference))
    shown = 1000 * (reference - offset), 1000 * (predicted - offset)
    _points(axes[0], *shown, _BLUE)
    _diagonal(axes[0], *shown)
    axes[0].set_xlabel(f"reference energy {'−' if offset > 0 else '+'} {abs(offset):.3f} eV/atom (meV/atom)")
    axes[0].set_ylabel("predicted (meV/atom)")
    _quote(axes[0], "energy per atom", errors, "energy", "meV/atom")

    reference, predicted = forces
    colors = _element_colors(elements)
    for symbol, color in colors.items():
        chosen = elements == symbol
        _points(axes[1], reference[chosen].ravel(), predicted[chosen].ravel(), color, symbol)
    _diagonal(axes[1], reference, predicted)
    axes[1].set_xlabel("reference force component (eV/Å)")
    axes[1].set_ylabel("predicted (eV/Å)")
    axes[1].legend(frameon=False, fontsize=9, loc="lower right", handletextpad=0.2)
    _quote(axes[1], "forces", errors, "forces", "meV/Å")

    error = 1000 * (predicted - reference)
    width = float(np.quantile(np.abs(error), 0.995)) or 1.0
    fewest = min(int((elements == symbol).sum()) for symbol in colors)
    bins = np.linspace(-width, width, int(np.clip(2 * fewest**0.5, 12, 80)))
    for symbol, color in colors.items():
        values = error[elements == symbol].ravel()
        axes[2].hist(values, bins, histtype="step", color=color, density=True, lw=1.4, label=symbol)
    axes[2].axvline(0, color=_GREY, lw=0.8)
    axes[2].set_xlabel("error of force component (meV/Å)")
    axes[2].set_ylabel("probability density (Å/meV)")
    axes[2].legend(frameon=False, fontsize=9)
    axes[2].set_title("force errors", fontsize=10)
    save_figure(figure, path)


def _points(axis: Any, x: NDArray[Any], y: NDArray[Any], color: Any, label: str | None = None) -> None:
    """A cloud that stays readable from a few to very many points."""
    many = max(1.0, len(x) / 500)
    size, alpha = max(2.0, 14 / many**0.5), max(0.15, 0.7 / many**0.3)
    axis.scatter(x, y, s=size, color=color, alpha=alpha, lw=0)
    if label:
        axis.scatter([], [], s=30, color=color, label=label)  # for the legend


def _diagonal(axis: Any, x: NDArray[Any], y: NDArray[Any]) -> None:
    """The line of perfect prediction, in a square that holds all points."""
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    axis.plot(limits, limits, color=_GREY, lw=0.8, zorder=0)
    axis.set_xlim(limits)
    axis.set_ylim(limits)
    axis.set_aspect("equal")


def _plain_numbers(axis: Any) -> None:
    """Tick labels such as 50 and 200 where a logarithmic axis spans little; powers of ten where it spans much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    if low < 1e-2:
        axis.yaxis.set_minor_formatter(NullFormatter())
        return
    decades = np.log10(high / low)
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _quote(axis: Any, title: str, errors: Mapping[str, float], name: str, unit: str) -> None:
    axis.set_title(title, fontsize=10)
    text = "\n".join(f"{kind.upper()} {1000 * errors[f'{name}_{kind}']:.3g} {unit}" for kind in ("mae", "rmse"))
    axis.text(0.04, 0.96, text, transform=axis.transAxes, va="top", fontsize=9)


def _element_colors(elements: NDArray[Any]) -> dict[str, Any]:
    from matplotlib import colormaps

    symbols, counts = np.unique(elements, return_counts=True)
    order = [str(symbol) for symbol in symbols[np.argsort(-counts)]]  # the most frequent first, so at the bottom
    return {symbol: colormaps["tab10"](index % 10) for index, symbol in enumerate(order)}
