"""Plots are written whole, and the numbers in them are right."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from nequip_fast.md.report import Comparison, drift_verdict, plot_comparisons, plot_energy_conservation


def dimers(lengths: np.ndarray) -> list[Atoms]:
    return [Atoms("CO", [[0, 0, 0], [0, 0, length]]) for length in lengths]


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def test_energy_plot_and_verdict(tmp_path: Path) -> None:
    times = np.linspace(0, 5, 200)
    wobble = 0.02 * np.sin(30 * times)
    thermo = {"time_ps": times, "kinetic_eV": 1.0 + wobble, "total_eV": -300.0 + 1e-4 * times + 0.01 * wobble}
    drift = plot_energy_conservation(thermo, 4, tmp_path / "energy.png", "test")
    assert png_size(tmp_path / "energy.png")[0] > 1000
    assert drift.slope_meV_atom_ps == pytest.approx(1e-4 * 1e3 / 4, rel=0.2)
    assert drift_verdict(drift).startswith("total energy conserved: drift +0.02")
    thermo["total_eV"] = thermo["total_eV"] + wobble
    assert "NOT conserved" in drift_verdict(plot_energy_conservation(thermo, 4, tmp_path / "energy.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["energy.png"]


def test_bond_comparison_sees_a_shift_and_knows_the_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    reference = dimers(rng.normal(1.15, 0.02, 2000))
    same = Comparison.of_bonds(dimers(rng.normal(1.15, 0.02, 2000)), reference, ("C", "O"))
    shifted = Comparison.of_bonds(dimers(rng.normal(1.19, 0.02, 2000)), reference, ("C", "O"))
    assert same.agreement > 0.94
    assert same.baseline > 0.92
    assert shifted.agreement == pytest.approx(0.317, abs=0.04)  # 2 Φ(−1)
    assert "mean 1.19" in shifted.summary()
    plot_comparisons([same, shifted], tmp_path / "bonds.png", "truth", "two panels")
    assert png_size(tmp_path / "bonds.png")[0] > 1000


def test_rdf_comparison(tmp_path: Path) -> None:
    def frames(seed: int, amplitude: float) -> list[Atoms]:
        crystals = [bulk("Cu", "fcc", 3.6).repeat(3) for _ in range(10)]
        for number, atoms in enumerate(crystals):
            atoms.rattle(amplitude, seed=seed + number)
        return crystals

    reference = frames(0, 0.1)
    same = Comparison.of_rdf(frames(100, 0.1), reference, ("Cu", "Cu"), r_max=6.0)
    softer = Comparison.of_rdf(frames(200, 0.3), reference, ("Cu", "Cu"), r_max=6.0)
    assert same.agreement > 0.93
    assert softer.agreement < 0.8
    plot_comparisons([same], tmp_path / "rdf.png")
    assert png_size(tmp_path / "rdf.png")[1] > 500
