"""Errors of the modules: an :class:`InputError` that is also what e3nn raises for the same mistake.

Code written against e3nn that catches e3nn's exception goes on working; the message says more.
"""

from __future__ import annotations

from nequip_fast.errors import InputError


class InstructionError(InputError, AssertionError):
    """An instruction, or an option of the constructor, that no module can be built from."""


class IrrepIndexError(InputError, IndexError):
    """An instruction names an irrep that is not there."""


class ShapeError(InputError, AssertionError, RuntimeError):
    """A tensor that does not fit the irreps or the weights; e3nn raises the one or the other."""


class MissingWeights(InputError, RuntimeError):
    """A module without weights of its own was called without any."""


def require(condition: bool, message: str) -> None:
    """Raise :class:`InstructionError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise InstructionError(message)
