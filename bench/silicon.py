"""A box of silicon in the diamond structure, shaken as at room temperature."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def silicon_box(cells: int, seed: int = 0) -> Any:
    """``cells``³ cubic cells of 8 Si, as ase.Atoms."""
    from ase.build import bulk

    atoms = bulk("Si", "diamond", a=5.431, cubic=True).repeat(cells)
    atoms.rattle(0.08, seed=seed)
    return atoms
