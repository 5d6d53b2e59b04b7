"""Metals, compounds, water and molecules from across the periodic table, shaken so that every force counts."""

from __future__ import annotations

import ase.build
import numpy as np
from ase import Atoms

from bench.water import water_box

METALS = Atoms("CuLiNaKFeWTaMgTiZrScYCoRuReZnCdGdErPbPtAg").symbols
CRYSTALS = {  # edges of the cubic cells, Å
    "cesiumchloride": dict.fromkeys(["NiAl", "AuCs", "PdIn", "IrHf", "RhNb", "HoTl", "BeV", "OsLa"], 3.2),
    "rocksalt": {"MgO": 4.2, "NaCl": 5.6, "RbI": 7.3, "KBr": 6.6, "LiF": 4.0, "MnO": 4.4, "EuO": 5.1, "SnTe": 6.3},
    "zincblende": {"GaAs": 5.7, "AlSb": 6.1, "BN": 3.6, "HgSe": 6.1, "SiC": 4.4, "ZnS": 5.4},
    "fluorite": {"CeO2": 5.4, "UO2": 5.5, "CaF2": 5.5},
}
PEROVSKITES = {"SrTiO3": 3.9, "BaTiO3": 4.0, "LaCrO3": 3.9, "BiMoO3": 4.0}
MOLECULES = ["C6H6", "CH3CH2OH", "SiH4", "PH3", "SO2", "CH3SH", "ClF", "NH3"]


def structures() -> list[Atoms]:
    """All of them, the same each time."""
    found = [ase.build.bulk(symbol, cubic=False).repeat((2, 2, 1)) for symbol in METALS]
    found += [ase.build.bulk(name, kind, a=a) for kind, edges in CRYSTALS.items() for name, a in edges.items()]
    found += [_perovskite(name, a) for name, a in PEROVSKITES.items()]
    found += [ase.build.molecule(name) for name in MOLECULES]
    generator = np.random.default_rng(0)
    return [_shaken(atoms, generator) for atoms in (*found, water_box(8).copy())]


def shaken_copper() -> Atoms:
    """32 atoms."""
    atoms = ase.build.bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.1, seed=3)
    return atoms


def _perovskite(name: str, a: float) -> Atoms:
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Atoms(name, scaled_positions=places, cell=[a, a, a], pbc=True)


def _shaken(atoms: Atoms, generator: np.random.Generator) -> Atoms:
    """Positions and, of a crystal, the cell moved by a few hundredths."""
    if atoms.pbc.any():
        strain = np.eye(3) + 0.03 * generator.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += 0.06 * generator.normal(size=atoms.positions.shape)
    return atoms
