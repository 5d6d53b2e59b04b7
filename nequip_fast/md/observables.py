"""What a trajectory says: distributions of distances and angles, diffusion, conservation of energy.

Frames are ``ase.Atoms``; lengths in Å, angles in degrees, times in ps, energies in eV unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nequip_fast.data import neighbor_list
from nequip_fast.errors import InputError, require

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """A normalised histogram: ``density`` integrates to one over ``edges``.

    ``mean`` and ``std`` are those of the samples, not of the bins.
    """

    edges: FloatArray  # [bins + 1]
    density: FloatArray  # [bins]
    mean: float
    std: float
    samples: int

    @property
    def centers(self) -> FloatArray:
        """Bin centres, ``[bins]``."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])


@dataclass(frozen=True)
class RadialDistribution:
    """g(r) of one pair of species and the running coordination number n(r)."""

    edges: FloatArray  # [bins + 1]
    g: FloatArray  # [bins]
    coordination: FloatArray  # [bins], neighbours within the outer edge of each bin

    @property
    def centers(self) -> FloatArray:
        """Bin centres, ``[bins]``."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])


@dataclass(frozen=True)
class EnergyDrift:
    """Straight line through the total energy of a trajectory, per atom."""

    slope_meV_atom_ps: float
    rms_meV_atom: float  # of the total energy about the line
    kinetic_rms_meV_atom: float  # of the kinetic energy about its mean: the scale to judge the others by
    span_ps: float

    @property
    def total_meV_atom(self) -> float:
        """What the line gains over the whole trajectory."""
        return self.slope_meV_atom_ps * self.span_ps

    @property
    def conserved(self) -> bool:
        """Whether gain and scatter of the total energy both stay under a tenth of the kinetic fluctuation."""
        limit = 0.1 * self.kinetic_rms_meV_atom
        return abs(self.total_meV_atom) <= limit and self.rms_meV_atom <= limit


def rdf(
    frames: Sequence[Atoms], pair: tuple[str, str] | None = None, *, r_max: float = 6.0, bins: int = 120
) -> RadialDistribution:
    """Radial distribution function of periodic frames, over every periodic image within ``r_max``.

    g(r) = n_AB(r) / (N_A ρ_B 4π/3 (r₊³ − r₋³)) with ρ_B = N_B/V of each frame, so an ideal gas of N particles gives
    1 − 1/N for equal species (Allen and Tildesley, Computer Simulation of Liquids, eq. 2.94).

    Args:
        pair: two element symbols, ``("O", "H")``; None counts all atoms alike.

    Raises:
        InputError: a frame is not periodic in three directions, or has no atom of a species.
    """
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    g = np.zeros(bins)
    coordination = np.zeros(bins)
    _require_frames(frames)
    for number, atoms in enumerate(frames):
        if not atoms.pbc.all():
            raise InputError(f"rdf: frame {number} is not periodic in all directions; use bond_length_distribution")
        first, second = _select(atoms, pair[0] if pair else None), _select(atoms, pair[1] if pair else None)
        i, j, vectors = _neighbours(atoms, r_max)
        chosen = first[i] & second[j]
        counts = np.histogram(np.linalg.norm(vectors[chosen], axis=1), edges)[0] / first.sum()
        g += counts / (shells * second.sum() / atoms.get_volume())
        coordination += np.cumsum(counts)
    return RadialDistribution(edges, g / len(frames), coordination / len(frames))


def bonded_pairs(atoms: Atoms, pair: tuple[str, str], *, tolerance: float = 1.25) -> NDArray[np.int64]:
    """Pairs ``[P, 2]`` of the two elements closer than ``tolerance`` times the sum of their covalent radii."""
    data = require("ase.data", "md")
    radii = [data.covalent_radii[data.atomic_numbers[symbol]] for symbol in pair]
    i, j, _ = _neighbours(atoms, tolerance * sum(radii))
    chosen = _select(atoms, pair[0])[i] & _select(atoms, pair[1])[j]
    if pair[0] == pair[1]:
        chosen &= i < j
    return np.unique(np.stack([i[chosen], j[chosen]], axis=1), axis=0)


def bond_lengths(frames: Sequence[Atoms], pair: tuple[str, str], bonds: NDArray[np.int64] | None = None) -> FloatArray:
    """Lengths ``[T·P]`` of the bonds of the first frame, followed through all frames.

    Args:
        pair: two element symbols, ``("C", "O")``.
        bonds: index pairs ``[P, 2]`` instead of :func:`bonded_pairs` of the first frame.

    Raises:
        InputError: the first frame has no such bond.
    """
    _require_frames(frames)
    if bonds is None:
        bonds = bonded_pairs(frames[0], pair)
    if len(bonds) == 0:
        raise InputError(f"bond_lengths: no {pair[0]}–{pair[1]} bond in the first frame")
    return np.concatenate([_bond_lengths_of(frame, bonds) for frame in frames])


def bond_length_distribution(
    frames: Sequence[Atoms], pair: tuple[str, str], *, bins: int | ArrayLike = 40
) -> Distribution:
    """Distribution of :func:`bond_lengths`; ``bins`` is a number, or edges for comparing two trajectories."""
    return histogram(bond_lengths(frames, pair), bins)


def adf(
    frames: Sequence[Atoms],
    triplet: tuple[str, str, str],
    *,
    r_max: float | tuple[float, float],
    bins: int = 90,
) -> Distribution:
    """Angular distribution A–B–C over 0–180°, the centre atom in the middle of ``triplet``.

    Args:
        triplet: element symbols, ``("H", "O", "H")``; each unordered pair of neighbours counts once.
        r_max: how far A and C may be from B, one number or one for each.

    Raises:
        InputError: no such angle in any frame.
    """
    _require_frames(frames)
    limit_a, limit_c = r_max if isinstance(r_max, tuple) else (r_max, r_max)
    angles: list[FloatArray] = []
    for atoms in frames:
        wing_a, centre, wing_c = (_select(atoms, symbol) for symbol in triplet)
        i, j, vectors = _neighbours(atoms, max(limit_a, limit_c))
        distances = np.linalg.norm(vectors, axis=1)
        arms_a = np.flatnonzero(centre[i] & wing_a[j] & (distances <= limit_a))
        arms_c = np.flatnonzero(centre[i] & wing_c[j] & (distances <= limit_c))
        left, right = _pairs_sharing_centre(arms_a, arms_c, i)
        left, right = _unordered(left, right, len(i))
        cosines = np.einsum("ij,ij->i", vectors[left], vectors[right]) / (distances[left] * distances[right])
        angles.append(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))
    values = np.concatenate(angles)
    if len(values) == 0:
        raise InputError(f"adf: no {'–'.join(triplet)} angle within r_max = {r_max} Å")
    return histogram(values, np.linspace(0.0, 180.0, bins + 1))


def unwrap(frames: Sequence[Atoms]) -> FloatArray:
    """Positions ``[T, N, 3]`` without jumps across cell faces, taking the shortest way between successive frames.

    Right as long as no atom moves half a cell between two frames; the cell may change from frame to frame.
    """
    _require_frames(frames)
    positions = np.array([frame.positions for frame in frames])
    for t in range(1, len(frames)):
        cell, pbc = frames[t].cell.complete(), frames[t].pbc
        steps = np.linalg.solve(cell.T, (positions[t] - positions[t - 1]).T).T
        positions[t] -= np.where(pbc, np.round(steps), 0.0) @ cell
    return positions


def msd(frames: Sequence[Atoms], species: str | None = None) -> FloatArray:
    """Mean squared displacement ``[T]`` in Å² at lags of 0 … T−1 frames, over atoms and all time origins.

    Positions are unwrapped and the motion of the centre of mass is taken out. Cost is O(T log T): the FFT form of
    Calandrini et al., Collection SFN 12, 201 (2011), eq. 4.21.

    Args:
        species: average over the atoms of this element alone.
    """
    positions = unwrap(frames)
    masses = frames[0].get_masses()
    positions -= np.einsum("tni,n->ti", positions, masses)[:, None] / masses.sum()
    x = positions[:, _select(frames[0], species)]
    x = x - x.mean(axis=0)  # displacements are unchanged and the difference of large numbers below loses less
    count = len(x)
    squared = np.einsum("tni,tni->tn", x, x)
    spectrum = np.fft.rfft(x, n=2 * count, axis=0)
    products = np.fft.irfft((spectrum * spectrum.conj()).real, n=2 * count, axis=0)[:count].sum(axis=2)
    # sum over origins of |x(t)|² + |x(t + lag)|²: all squares twice, less those with no partner at this lag
    forward, backward = np.cumsum(squared, axis=0), np.cumsum(squared[::-1], axis=0)
    missing = np.zeros_like(squared)
    missing[1:] = forward[:-1] + backward[:-1]
    origins = count - np.arange(count)[:, None]
    result = ((2.0 * squared.sum(axis=0) - missing - 2.0 * products) / origins).mean(axis=1)
    result[0] = 0.0
    return np.maximum(result, 0.0)


def diffusion_coefficient(times_ps: ArrayLike, msd_A2: ArrayLike, *, fit: tuple[float, float] = (0.1, 0.5)) -> float:
    """Self-diffusion coefficient in cm²/s from the Einstein relation, MSD = 6 D t.

    Args:
        fit: the part of the lag range the line is fitted to; short lags are ballistic, long ones have few origins.
    """
    times, values = np.asarray(times_ps, float), np.asarray(msd_A2, float)
    first, last = int(fit[0] * len(times)), max(int(fit[1] * len(times)), int(fit[0] * len(times)) + 2)
    slope = np.polyfit(times[first:last], values[first:last], 1)[0]
    return float(slope / 6.0 * 1e-4)  # 1 Å²/ps = 1e-4 cm²/s


def energy_drift(times_ps: ArrayLike, total_eV: ArrayLike, kinetic_eV: ArrayLike, num_atoms: int) -> EnergyDrift:
    """Fit a line to the total energy of an NVE trajectory.

    Raises:
        InputError: fewer than three samples.
    """
    times, total, kinetic = (np.asarray(values, float) for values in (times_ps, total_eV, kinetic_eV))
    if len(times) < 3:
        raise InputError(f"energy_drift: {len(times)} samples are too few for a line; run longer or log more often")
    scale = 1e3 / num_atoms
    centred = total - total.mean()  # total energies of thousands of eV would cost the fit its digits
    slope, offset = np.polyfit(times, centred, 1)
    residual = centred - (slope * times + offset)
    return EnergyDrift(
        slope_meV_atom_ps=float(slope * scale),
        rms_meV_atom=float(np.sqrt(np.mean(residual**2)) * scale),
        kinetic_rms_meV_atom=float(kinetic.std() * scale),
        span_ps=float(times[-1] - times[0]),
    )


def histogram(samples: ArrayLike, bins: int | ArrayLike = 80) -> Distribution:
    """Normalised histogram of samples; ``bins`` as in :func:`numpy.histogram`.

    Samples outside given edges count towards ``mean``, ``std`` and the norm, so ``density`` then integrates to less
    than one.
    """
    values = np.asarray(samples, float)
    counts, edges = np.histogram(values, bins)
    return Distribution(
        edges, counts / (len(values) * np.diff(edges)), float(values.mean()), float(values.std()), len(values)
    )


def common_edges(*samples: ArrayLike, bins: int = 80) -> FloatArray:
    """Bin edges that cover all the given samples, for histograms that are to be compared."""
    values = np.concatenate([np.asarray(s, float).ravel() for s in samples])
    return np.linspace(values.min(), values.max(), bins + 1)


def overlap(first: Distribution, second: Distribution) -> float:
    """Area common to two distributions on the same bins: 1 when equal, 0 when disjoint."""
    if not np.array_equal(first.edges, second.edges):
        raise InputError("overlap: the two distributions have different bins; give both the same edges")
    return float(np.sum(np.minimum(first.density, second.density) * np.diff(first.edges)))


def _neighbours(atoms: Atoms, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Full list of pairs within ``cutoff``: centre i, neighbour j, vector from i to j."""
    cell = np.asarray(atoms.cell)
    edge_index, shifts = neighbor_list(atoms.positions, cell, atoms.pbc, cutoff)
    i, j = np.asarray(edge_index)
    return i, j, atoms.positions[j] - atoms.positions[i] + np.asarray(shifts) @ cell


def _bond_lengths_of(atoms: Atoms, bonds: NDArray[np.int64]) -> FloatArray:
    """Lengths of the shortest vectors between the atoms of each pair."""
    geometry = require("ase.geometry", "md")
    i, j = bonds.T
    return np.asarray(geometry.find_mic(atoms.positions[j] - atoms.positions[i], atoms.cell, atoms.pbc)[1])


def _pairs_sharing_centre(
    left: NDArray[np.intp], right: NDArray[np.intp], centres: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every (edge of ``left``, edge of ``right``) with the same centre atom; edges are sorted by centre."""
    start = np.searchsorted(centres[right], centres[left], side="left")
    stop = np.searchsorted(centres[right], centres[left], side="right")
    counts = stop - start
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(left, counts), right[np.repeat(start, counts) + offsets]


def _unordered(
    left: NDArray[np.intp], right: NDArray[np.intp], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Each pair of two different edges once, whichever of the two came first; ``count`` edges in all."""
    codes = np.unique(np.minimum(left, right) * count + np.maximum(left, right))
    low, high = np.divmod(codes, max(count, 1))
    distinct = low != high
    return low[distinct], high[distinct]


def _select(atoms: Atoms, symbol: str | None) -> NDArray[np.bool_]:
    """Mask of the atoms of one element, or of all."""
    if symbol is None:
        return np.ones(len(atoms), bool)
    mask = np.array(atoms.get_chemical_symbols()) == symbol
    if not mask.any():
        raise InputError(f"no {symbol} in {atoms.get_chemical_formula()}; name an element of the structure")
    return mask


def _require_frames(frames: Sequence[Atoms]) -> None:
    if len(frames) == 0:
        raise InputError("no frames to analyse; the trajectory is empty")
