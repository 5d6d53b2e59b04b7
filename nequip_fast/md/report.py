"""Plots of a molecular dynamics run: energy conservation, and distributions beside those of a reference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nequip_fast.md.observables import (
    Distribution,
    EnergyDrift,
    RadialDistribution,
    bond_lengths,
    common_edges,
    energy_drift,
    histogram,
    overlap,
    rdf,
)
from nequip_fast.plotting import new_figure, save_figure

if TYPE_CHECKING:
    from ase import Atoms

_MODEL, _REFERENCE, _FIT = "#2a6fbb", "#8a8a8a", "#e07b28"


def drift_verdict(drift: EnergyDrift) -> str:
    """One sentence: how far the total energy wandered, against how much energy changed hands."""
    return (
        f"total energy {'conserved' if drift.conserved else 'NOT conserved'}: "
        f"drift {drift.slope_meV_atom_ps:+.2g} meV/atom/ps over {drift.span_ps:.3g} ps, "
        f"RMS {drift.rms_meV_atom:.2g} meV/atom, "
        f"while the kinetic energy fluctuates by {drift.kinetic_rms_meV_atom:.2g} meV/atom (RMS)"
    )


def plot_energy_conservation(
    thermo: Mapping[str, NDArray[np.float64]], num_atoms: int, path: str | os.PathLike[str], title: str = ""
) -> EnergyDrift:
    """Total energy of an NVE run: beside the kinetic energy on one scale (left), and alone with its line (right).

    Args:
        thermo: columns of the log, as :func:`nequip_fast.md.read_thermo` gives them.
        path: PNG file to write.

    Returns:
        The line through the total energy.
    """
    times, total, kinetic = thermo["time_ps"], thermo["total_eV"], thermo["kinetic_eV"]
    drift = energy_drift(times, total, kinetic, num_atoms)
    scale = 1e3 / num_atoms
    gained, swing = (total - total.mean()) * scale, (kinetic - kinetic.mean()) * scale
    figure, (both, alone) = new_figure(2, (11.5, 3.9))
    if title:
        figure.suptitle(title, fontsize=11)
    both.plot(times, swing, color=_REFERENCE, lw=0.7, label=f"kinetic, RMS {drift.kinetic_rms_meV_atom:.2g}")
    both.plot(times, gained, color=_MODEL, lw=1.4, label=f"total, RMS {drift.rms_meV_atom:.2g}")
    both.set_title("kinetic and total energy", loc="left", fontsize=10)
    alone.plot(times, gained, color=_MODEL, lw=0.7, label="total")
    line = drift.slope_meV_atom_ps * (times - times.mean())
    alone.plot(times, line, color=_FIT, lw=1.8, label=f"fit, {drift.slope_meV_atom_ps:+.2g} meV/atom/ps")
    alone.set_title("total energy, enlarged", loc="left", fontsize=10)
    for axis in (both, alone):
        axis.set_xlabel("time (ps)")
        axis.set_ylabel("energy − mean (meV/atom)")
        axis.set_xlim(times[0], times[-1])
        _grid(axis)
        _legend_above(axis)
    save_figure(figure, path)
    return drift


@dataclass(frozen=True)
class Comparison:
    """One distribution by the model and by the reference, on the same bins, and how well the two agree.

    Attributes:
        agreement: overlap of the two, 1 when equal and 0 when disjoint; for g(r), overlap of r² g(r).
        baseline: overlap of the first half of the reference with its second half: what its length lets one expect.
    """

    name: str
    model: Distribution | RadialDistribution
    reference: Distribution | RadialDistribution
    agreement: float
    baseline: float

    @classmethod
    def of_bonds(
        cls, model: Sequence[Atoms], reference: Sequence[Atoms], pair: tuple[str, str], bins: int = 24
    ) -> Comparison:
        """Bond lengths of two trajectories."""
        lengths = [bond_lengths(frames, pair) for frames in (model, reference, *_halves(reference))]
        edges = common_edges(*lengths[:2], bins=bins)
        ours, theirs, *halves = (histogram(values, edges) for values in lengths)
        return cls(f"{pair[0]}–{pair[1]} bond length", ours, theirs, overlap(ours, theirs), overlap(*halves))

    @classmethod
    def of_rdf(
        cls, model: Sequence[Atoms], reference: Sequence[Atoms], pair: tuple[str, str], r_max: float, bins: int = 50
    ) -> Comparison:
        """Radial distribution functions of two trajectories."""
        both = (rdf(frames, pair, r_max=r_max, bins=bins) for frames in (model, reference, *_halves(reference)))
        ours, theirs, *halves = both
        agreement = overlap(_pair_density(ours), _pair_density(theirs))
        baseline = overlap(*(_pair_density(half) for half in halves))
        return cls(f"{pair[0]}–{pair[1]} distance", ours, theirs, agreement, baseline)

    def summary(self) -> str:
        """One line of numbers."""
        line = f"{self.name}: overlap {self.agreement:.2f} ({self.baseline:.2f} between two halves of the reference)"
        if isinstance(self.model, Distribution) and isinstance(self.reference, Distribution):
            line += (
                f", mean {self.model.mean:.4f} Å (reference {self.reference.mean:.4f})"
                f", width {self.model.std:.4f} Å (reference {self.reference.std:.4f})"
            )
        return line


def plot_comparisons(
    comparisons: Sequence[Comparison], path: str | os.PathLike[str], reference_name: str = "reference", title: str = ""
) -> None:
    """Model against reference trajectory, one panel per distribution.

    Args:
        path: PNG file to write.
        reference_name: method behind the reference trajectory, for the legend.
    """
    figure, axes = new_figure(len(comparisons), (4.3 * len(comparisons) + 0.6, 3.9))
    if title:
        figure.suptitle(title, fontsize=11)
    for axis, item in zip(axes, comparisons, strict=True):
        radial = isinstance(item.model, RadialDistribution)
        reference, model = _values(item.reference), _values(item.model)
        axis.stairs(reference, item.reference.edges, fill=True, color=_REFERENCE, alpha=0.45, label=reference_name)
        axis.stairs(model, item.model.edges, color=_MODEL, lw=1.7, label="model")
        axis.set_xlabel(f"{item.name} (Å)")
        axis.set_ylabel("g(r)" if radial else "probability density (1/Å)")
        if radial:
            axis.axhline(1.0, color="black", lw=0.6, ls=":")
        axis.set_xlim(*_support(item))
        axis.set_ylim(0.0, 1.08 * max(reference.max(), model.max(), 1e-12))
        axis.set_title(f"overlap {item.agreement:.2f}", loc="left", fontsize=10)
        _grid(axis)
        _legend_above(axis)
    save_figure(figure, path)


def _values(distribution: Distribution | RadialDistribution) -> NDArray[np.float64]:
    return distribution.g if isinstance(distribution, RadialDistribution) else distribution.density


def _support(item: Comparison) -> tuple[float, float]:
    """Range of the axis: all of a g(r), otherwise where either distribution has any weight."""
    edges = item.model.edges
    if isinstance(item.model, RadialDistribution):
        return float(edges[0]), float(edges[-1])
    filled = np.flatnonzero(_values(item.model) + _values(item.reference))
    margin = 0.02 * (edges[filled[-1] + 1] - edges[filled[0]])
    return float(edges[filled[0]] - margin), float(edges[filled[-1] + 1] + margin)


def _halves(frames: Sequence[Atoms]) -> tuple[Sequence[Atoms], Sequence[Atoms]]:
    middle = len(frames) // 2
    return frames[:middle], frames[middle:]


def _pair_density(radial: RadialDistribution) -> Distribution:
    """g(r) weighted with the volume of each shell: where the neighbours are."""
    weights = radial.g * np.diff(radial.edges**3)
    density = weights / max(float(np.sum(weights)), 1e-300) / np.diff(radial.edges)
    return Distribution(radial.edges, density, float("nan"), float("nan"), 0)


def _grid(axis: Any) -> None:
    axis.grid(alpha=0.25, lw=0.5)
    axis.set_axisbelow(True)


def _legend_above(axis: Any) -> None:
    """A legend in the free space right of the title, so that it hides no curve."""
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=8, borderaxespad=0.2)
