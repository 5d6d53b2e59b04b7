"""Which implementation serves an operator: the compiled library, and the rule of choice.

``auto`` takes the fastest backend that supports the inputs; a backend named by :func:`set_backend`,
:func:`use_backend` or ``NEQUIP_FAST_BACKEND`` serves or raises. Nothing falls back in silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from nequip_fast.errors import InputError, nearest

BACKENDS = ("auto", "reference", "cpu", "cuda")
_ENVIRONMENT = "NEQUIP_FAST_BACKEND"


def _load_library() -> str | None:
    """Load the compiled operators; None when loaded, else why not."""
    path = Path(__file__).parent.parent / "_C.so"
    if not path.is_file():
        return "the extension is not built (run: pip install --no-build-isolation -e .)"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"the extension did not load: {error}"
    return None


NOT_LOADED: str | None = _load_library()


def _checked(name: str, source: str = "") -> str:
    if name not in BACKENDS:
        raise InputError(
            f"{source}unknown backend {name!r}, expected one of {', '.join(BACKENDS)}{nearest(name, BACKENDS)}"
        )
    return name


_current = os.environ.get(_ENVIRONMENT) or "auto"  # checked when used: an import must not fail on it


def get_backend() -> str:
    """The backend now in force for every operator.

    Raises:
        InputError: ``NEQUIP_FAST_BACKEND`` names none.
    """
    return _checked(_current, f"{_ENVIRONMENT}: ")


def set_backend(name: str) -> None:
    """Use backend ``name`` (one of :data:`BACKENDS`) from now on.

    Raises:
        InputError: no such backend.
    """
    global _current
    _current = _checked(name)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use backend ``name`` inside a ``with`` block."""
    previous = get_backend()
    set_backend(name)
    try:
        yield
    finally:
        set_backend(previous)


def compiled(name: str) -> bool:
    """True when the compiled library has operator ``name``."""
    return NOT_LOADED is None and hasattr(torch.ops.nequip_fast, name)


def has_cuda_kernels() -> bool:
    """True when the library was built with nvcc."""
    return compiled("build_info") and "cuda" in str(torch.ops.nequip_fast.build_info())


def choose(operator: str, tensor: Tensor, refusals: dict[str, Callable[[], str | None]]) -> str:
    """The backend that runs ``operator`` on ``tensor``'s device and dtype.

    Args:
        refusals: for each compiled backend of this operator, fastest first, a function that says why it
            cannot serve these inputs, or None if it can.

    Raises:
        InputError: the backend asked for by name cannot serve; the reason is in the message.
    """
    asked = get_backend()
    if asked == "reference":
        return "reference"
    names = list(refusals) if asked == "auto" else [asked]
    for name in names:
        reason = _why_not(name, tensor, refusals)
        if reason is None:
            return name
        if asked != "auto":
            raise InputError(f"backend {name!r} cannot run {operator}: {reason}")
    return "reference"


def _why_not(name: str, tensor: Tensor, refusals: dict[str, Callable[[], str | None]]) -> str | None:
    if name not in refusals:
        return f"it has no {name} kernel yet"
    if NOT_LOADED is not None:
        return NOT_LOADED
    if tensor.device.type != name:
        return f"the inputs are on {tensor.device.type}"
    if tensor.dtype not in (torch.float32, torch.float64):
        return f"it takes float32 or float64, not {tensor.dtype}"
    if name == "cuda" and not has_cuda_kernels():
        return "the extension was built without nvcc"
    return refusals[name]()
