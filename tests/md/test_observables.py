"""Observables against cases known in closed form, and against ASE's own."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.geometry.rdf import get_rdf

from nequip_fast.errors import InputError
from nequip_fast.md import observables


def gas(num_atoms: int, length: float, rng: np.random.Generator, symbols: str = "Ar") -> Atoms:
    return Atoms([symbols] * num_atoms, rng.uniform(0, length, (num_atoms, 3)), cell=[length] * 3, pbc=True)


def test_rdf_of_an_ideal_gas_is_flat() -> None:
    rng = np.random.default_rng(0)
    frames = [gas(200, 12.0, rng) for _ in range(40)]
    result = observables.rdf(frames, r_max=5.0, bins=25)
    far = result.g[8:]  # inner shells hold few pairs
    assert far.mean() == pytest.approx(1.0 - 1.0 / 200, abs=0.01)
    assert np.abs(far - 1.0).max() < 0.05
    assert result.coordination[-1] == pytest.approx(199 / 12.0**3 * 4 / 3 * np.pi * 5.0**3, rel=0.02)


def test_rdf_of_fcc_counts_its_shells_even_beyond_half_the_cell() -> None:
    a = 4.0
    primitive = bulk("Cu", "fcc", a)  # one atom, triclinic: every neighbour is an image
    result = observables.rdf([primitive], ("Cu", "Cu"), r_max=1.3 * a, bins=130)
    shells = {a / np.sqrt(2): 12, a: 18, a * np.sqrt(1.5): 42}
    for radius, neighbours in shells.items():
        assert result.coordination[np.searchsorted(result.edges[1:], radius + 0.05)] == neighbours
    occupied = result.centers[result.g > 0]
    assert len(occupied) == 3


def test_rdf_agrees_with_ase_for_each_pair_of_species() -> None:
    rng = np.random.default_rng(1)
    atoms = gas(60, 9.0, rng)
    atoms.symbols[:20] = "O"
    atoms.set_cell(np.add(atoms.cell, [[0, 0, 0], [1.5, 0, 0], [0.7, -1.1, 0]]), scale_atoms=True)
    for pair in (("O", "Ar"), ("Ar", "Ar"), ("Ar", "O")):
        ours = observables.rdf([atoms], pair, r_max=3.5, bins=20)
        numbers = [int(Atoms(symbol).numbers[0]) for symbol in pair]
        theirs, centres = get_rdf(atoms, 3.5, 20, elements=numbers)
        np.testing.assert_allclose(ours.centers, centres)
        np.testing.assert_allclose(ours.g, theirs, rtol=1e-10)


def test_rdf_needs_periodic_frames_and_known_species() -> None:
    with pytest.raises(InputError, match="not periodic"):
        observables.rdf([molecule("H2O")])
    with pytest.raises(InputError, match="no Xe"):
        observables.rdf([bulk("Cu")], ("Xe", "Cu"))
    with pytest.raises(InputError, match="no frames"):
        observables.rdf([])


def test_bonds_are_followed_across_cell_faces() -> None:
    water = molecule("H2O")
    length = water.get_distance(0, 1)
    water.set_cell([6.0] * 3)
    water.pbc = True
    frames = []
    for shift in np.linspace(0, 6, 20):
        moved = water.copy()
        moved.positions += [shift, 0, 0.5 * shift]
        moved.wrap()
        frames.append(moved)
    assert observables.bonded_pairs(water, ("O", "H")).tolist() == [[0, 1], [0, 2]]
    result = observables.bond_length_distribution(frames, ("O", "H"), bins=np.linspace(0.5, 1.5, 21))
    assert result.samples == 40
    assert result.mean == pytest.approx(length)
    assert result.std == pytest.approx(0.0, abs=1e-12)
    assert np.sum(result.density * np.diff(result.edges)) == pytest.approx(1.0)
    with pytest.raises(InputError, match="no O–O bond"):
        observables.bond_length_distribution(frames, ("O", "O"))


def test_equal_species_bonds_count_once() -> None:
    assert len(observables.bonded_pairs(molecule("C2H6"), ("C", "C"))) == 1


def test_angles_of_molecules_and_crystals() -> None:
    methane = observables.adf([molecule("CH4")], ("H", "C", "H"), r_max=1.3)
    assert methane.samples == 6
    assert methane.mean == pytest.approx(np.degrees(np.arccos(-1 / 3)), abs=1e-3)
    copper = observables.adf([bulk("Cu", "fcc", 4.0)], ("Cu", "Cu", "Cu"), r_max=3.0)
    assert copper.samples == 66  # pairs of twelve neighbours: 24 of 60°, 12 of 90°, 24 of 120°, 6 of 180°
    assert copper.mean == pytest.approx((24 * 60 + 12 * 90 + 24 * 120 + 6 * 180) / 66)
    mixed = observables.adf([molecule("CH3OH")], ("C", "O", "H"), r_max=(1.6, 1.1))
    assert mixed.samples == 1
    # equal species, different reach: the pair of hydrogens is still one angle
    assert observables.adf([molecule("H2O")], ("H", "O", "H"), r_max=(1.1, 1.2)).samples == 1
    with pytest.raises(InputError, match="no H–O–H angle"):
        observables.adf([molecule("H2O")], ("H", "O", "H"), r_max=0.5)


def random_walk(steps: int, num_atoms: int, sigma: float, rng: np.random.Generator) -> list[Atoms]:
    walk = np.cumsum(rng.normal(0, sigma, (steps, num_atoms, 3)), axis=0)
    frames = []
    for positions in walk:
        frame = Atoms(["Ar"] * num_atoms, positions, cell=[[7, 0, 0], [2, 6, 0], [1, 1, 8]], pbc=True)
        frame.wrap()
        frames.append(frame)
    return frames


def test_msd_of_a_wrapped_random_walk() -> None:
    sigma, num_atoms = 0.2, 150
    frames = random_walk(200, num_atoms, sigma, np.random.default_rng(2))
    result = observables.msd(frames)
    lags = np.arange(len(result))
    expected = 3 * sigma**2 * lags * (1 - 1 / num_atoms)  # the centre of mass walks too and is taken out
    np.testing.assert_allclose(result[1:50], expected[1:50], rtol=0.08)
    assert result[0] == 0.0
    diffusion = observables.diffusion_coefficient(lags * 0.1, result, fit=(0.01, 0.1))  # 0.1 ps between frames
    assert diffusion == pytest.approx(sigma**2 / 0.2 * 1e-4, rel=0.08)


def test_msd_equals_the_sum_over_time_origins_and_ignores_drift() -> None:
    rng = np.random.default_rng(3)
    frames = random_walk(12, 5, 0.1, rng)
    for frame in frames:
        frame.symbols[0] = "H"
    drifting = [frame.copy() for frame in frames]
    for t, frame in enumerate(drifting):
        frame.positions += 0.3 * t
        frame.wrap()
    x = observables.unwrap(frames)
    masses = frames[0].get_masses()
    x = x - np.einsum("tni,n->ti", x, masses)[:, None] / masses.sum()
    direct = [np.mean(np.sum((x[lag:] - x[: len(x) - lag]) ** 2, axis=2)) for lag in range(12)]
    np.testing.assert_allclose(observables.msd(frames), direct, atol=1e-12)
    np.testing.assert_allclose(observables.msd(drifting), direct, atol=1e-12)
    hydrogen = [np.mean(np.sum((x[lag:, 0] - x[: 12 - lag, 0]) ** 2, axis=1)) for lag in range(12)]
    np.testing.assert_allclose(observables.msd(frames, "H"), hydrogen, atol=1e-12)


def test_msd_without_periodicity() -> None:
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, 10.0 * t]]) for t in range(4)]
    np.testing.assert_allclose(observables.msd(frames), [(5.0 * t) ** 2 for t in range(4)], atol=1e-9)


def test_energy_drift_recovers_slope_and_scatter_of_large_energies() -> None:
    rng = np.random.default_rng(4)
    times = np.linspace(0, 10, 4001)
    total = -154_000.0 + 9e-3 * 0.02 * times + rng.normal(0, 9e-3 * 0.5, times.size)
    kinetic = 0.5 + 9e-3 * 30 * np.sin(times)
    drift = observables.energy_drift(times, total, kinetic, num_atoms=9)
    assert drift.slope_meV_atom_ps == pytest.approx(0.02, abs=0.01)
    assert drift.rms_meV_atom == pytest.approx(0.5, rel=0.05)
    assert drift.total_meV_atom == pytest.approx(10 * drift.slope_meV_atom_ps)
    assert drift.conserved
    assert not observables.energy_drift(times, total + times, kinetic, num_atoms=9).conserved
    with pytest.raises(InputError, match="too few"):
        observables.energy_drift([0, 1], [0, 0], [0, 0], 1)


def test_overlap_of_two_gaussians() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(0, 1, 200_000), rng.normal(1, 1, 200_000)
    edges = observables.common_edges(first, second, bins=200)
    p, q = (observables.histogram(samples, edges) for samples in (first, second))
    assert observables.overlap(p, p) == pytest.approx(1.0)
    assert observables.overlap(p, q) == pytest.approx(0.6171, abs=0.01)  # 2 Φ(−1/2)
    with pytest.raises(InputError, match="different bins"):
        observables.overlap(p, observables.histogram(first, 10))
