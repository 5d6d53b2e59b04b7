"""Make the demo's reference data: molecular dynamics with extended tight binding (tblite).

    python demo/make_data.py ethanol --out demo/data/ethanol.xyz    # 2 minutes on one core
    python demo/make_data.py water --out demo/data/water.xyz        # 15 minutes on one core

Needs ``pip install 'nequip_fast[data]'``. Runs are seeded; demo/data/README.md says what the files hold.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

from nequip_fast.files import atomic_path


@dataclass(frozen=True)
class Recipe:
    """How one trajectory is sampled: times in fs, friction in 1/fs, temperature in K."""

    method: str
    temperature: float
    time_step: float
    friction: float
    spacing: float  # between saved frames
    frames: int
    equilibration: float
    properties: tuple[str, ...]


RECIPES = {
    "ethanol": Recipe("GFN2-xTB", 500, 0.5, 0.01, 40, 600, 5000, ("energy", "forces")),
    # GFN1 because periodic GFN2 is ten times slower
    "water": Recipe("GFN1-xTB", 330, 1.0, 0.02, 10, 100, 800, ("energy", "forces", "stress")),
}


def ethanol() -> Atoms:
    return molecule("CH3CH2OH")


def water(molecules_per_side: int = 3, density: float = 0.997) -> Atoms:
    """Cubic box of randomly turned heavy-hydrogen water molecules on a grid, at ``density`` (g/cm³) of light water.

    Classical averages over positions do not depend on masses: heavy hydrogen allows the longer time step.
    """
    rng = np.random.default_rng(1)
    single = molecule("H2O")
    spacing = (single.get_masses().sum() / (density * 1e-24 * units.mol)) ** (1 / 3)
    box = Atoms(cell=[molecules_per_side * spacing] * 3, pbc=True)
    for site in np.ndindex((molecules_per_side,) * 3):
        turned = single.copy()
        turned.rotate(rng.uniform(0, 360), rng.normal(size=3))
        turned.translate(spacing * np.array(site))
        box += turned
    box.set_masses([2.014 if atom.symbol == "H" else atom.mass for atom in box])
    return box


def dynamics(atoms: Atoms, recipe: Recipe, seed: int) -> Langevin:
    """Langevin dynamics from Maxwell-Boltzmann velocities, centre of mass fixed."""
    rng = np.random.default_rng(seed)
    thermalize_momenta(atoms, recipe.temperature, rng=rng)
    atoms.set_constraint(FixCom())  # not fixcm=True of Langevin, which runs 30 % too hot with 9 atoms (ASE 3.29)
    time_step, friction = recipe.time_step * units.fs, recipe.friction / units.fs
    return Langevin(atoms, time_step, temperature_K=recipe.temperature, friction=friction, rng=rng, fixcm=False)


def label(atoms: Atoms, calculator: Calculator, time: float, recipe: Recipe) -> Atoms:
    """A copy of ``atoms`` that carries its reference values, its time (fs) and how it was made."""
    frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    frame.calc = SinglePointCalculator(frame, **{key: calculator.get_property(key, atoms) for key in recipe.properties})
    frame.info = {"time_fs": time, "temperature_K": recipe.temperature, "method": recipe.method}
    return frame


def trajectory(system: str, seed: int = 0) -> list[Atoms]:
    """Sample one system as its recipe says."""
    recipe = RECIPES[system]
    atoms = {"ethanol": ethanol, "water": water}[system]()
    atoms.calc = TBLite(method=recipe.method, accuracy=0.1, verbosity=0)
    run = dynamics(atoms, recipe, seed)
    run.run(round(recipe.equilibration / recipe.time_step))
    frames, temperatures = [], []
    for index in range(recipe.frames):
        run.run(round(recipe.spacing / recipe.time_step))
        frames.append(label(atoms, atoms.calc, (index + 1) * recipe.spacing, recipe))
        temperatures.append(atoms.get_temperature())
        if (index + 1) % 20 == 0:
            print(f"{system}: {index + 1}/{recipe.frames} frames, mean T {np.mean(temperatures):.0f} K", flush=True)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=RECIPES)
    parser.add_argument("--out", required=True, help="extended XYZ file to write")
    arguments = parser.parse_args()
    frames = trajectory(arguments.system)
    with atomic_path(arguments.out) as temporary:
        ase.io.write(temporary, frames, format="extxyz")
    print(f"wrote {len(frames)} frames to {arguments.out}")


if __name__ == "__main__":
    main()
