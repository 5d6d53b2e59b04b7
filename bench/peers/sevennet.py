"""SevenNet itself: its ASE calculator with the models it ships, float32. On a CPU it offers no accelerator."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

NAME = "sevennet"
CHECKPOINTS = {"0": "SEVENNET_0_11Jul2024", "l3i5": "SEVENNET_l3i5"}  # names in sevenn._const


def missing() -> str | None:
    """Needs the package."""
    return None if find_spec("sevenn") else "sevenn is not installed; run: pip install 'nequip_fast[sevennet]'"


def checkpoint(model: str) -> str:
    """Path of the model ``0`` or ``l3i5``."""
    import sevenn._const

    return getattr(sevenn._const, CHECKPOINTS[model])


def calculator(model: str) -> Any:
    """SevenNet's calculator of the model ``0`` or ``l3i5``."""
    from sevenn.calculator import SevenNetCalculator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of accelerators, which need a GPU
        return SevenNetCalculator(checkpoint(model), device="cpu")
