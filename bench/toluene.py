"""Toluene, the molecule of the NequIP paper's comparison with coupled cluster."""

from __future__ import annotations

from typing import Any

import numpy as np

_RING, _CH, _CC = 1.396, 1.085, 1.51  # Å: ring radius and bond, C–H, ring–methyl
_CH_METHYL, _TILT = 1.093, np.radians(111.0)


def toluene() -> Any:
    """C6H5CH3 from textbook bond lengths and angles, as ase.Atoms without a cell."""
    from ase import Atoms

    around = np.radians(60.0 * np.arange(6))
    spokes = np.stack([np.cos(around), np.sin(around), np.zeros(6)], 1)
    methyl = (_RING + _CC) * spokes[0]
    turns = np.radians([90.0, 210.0, 330.0])
    out = -np.cos(_TILT) * spokes[0] + np.sin(_TILT) * np.stack([np.zeros(3), np.cos(turns), np.sin(turns)], 1)
    positions = np.concatenate([_RING * spokes, methyl[None], (_RING + _CH) * spokes[1:], methyl + _CH_METHYL * out])
    return Atoms("C7H8", positions)
