"""Which implementation serves an operator: the compiled library, Triton, and the rule of choice.

``auto`` takes the fastest backend that supports the inputs; a backend named by :func:`set_backend`,
:func:`use_backend` or ``NEQUIP_FAST_BACKEND`` serves or raises. Nothing falls back in silence.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nequip_fast.errors import InputError, nearest

BACKENDS = ("auto", "reference", "cpu", "cuda", "triton")
KERNELS = {  # operator -> the backends that have kernels for it
    "spherical_harmonics": ("cpu", "cuda", "triton"),
    "conv": ("cpu", "cuda", "triton"),
    "conv_of_table": ("cuda", "triton"),  # without, weights are formed and given to conv
    "tensor_product": ("cpu", "triton"),
    "attributes": ("cpu",),  # products with rows of a table; elsewhere the rows are gathered
    "segment_sum": ("cpu", "cuda", "triton"),
    "gate": ("cpu", "cuda", "triton"),
    "mlp": ("cpu",),  # on a GPU its matrices are products of torch, its activations gates
    "radial": ("cpu", "cuda", "triton"),
    "hermite": ("cuda", "triton"),  # this and the next of the engine, where that in C++ does not run
    "linear": ("cuda", "triton"),
}
_ENVIRONMENT = "NEQUIP_FAST_BACKEND"
_EMULATED_LIBRARY = os.environ.get("NEQUIP_FAST_EMULATED_CUDA")  # for tests: what tests/simt builds


def _load_library() -> str | None:
    """Load the compiled operators; None when loaded, else why not."""
    path = Path(__file__).parent.parent / "_C.so"
    if not path.is_file():
        return "the extension is not built (run: pip install --no-build-isolation -e .)"
    try:
        torch.ops.load_library(str(path))
        if _EMULATED_LIBRARY:
            torch.ops.load_library(_EMULATED_LIBRARY)
    except OSError as error:
        return f"the extension did not load: {error}"
    return None


def _no_triton() -> str | None:
    """None where Triton's kernels can run, on a GPU or interpreted, else why not."""
    if find_spec("triton") is None:
        return "triton is not installed (run: pip install triton)"
    if torch.version.cuda is None and not INTERPRETED:
        return "this torch has no CUDA"
    try:
        import triton
    except Exception as error:  # whatever a broken installation raises
        return f"triton cannot be imported: {error}"
    return None if hasattr(triton, "constexpr_function") else "it needs triton 3.6 or later"


NOT_LOADED: str | None = _load_library()
# Triton's kernels run as Python, on the CPU: the values that Triton takes for yes
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
NO_TRITON: str | None = _no_triton()
EMULATED = bool(_EMULATED_LIBRARY)  # the CUDA kernels run on the CPU, in place of the CPU's own
DEVICES = {  # the backends of a device, the faster ones first
    "cpu": ("cuda", "cpu") if EMULATED else ("cpu",),
    "cuda": ("cuda", "triton"),
}


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
    """True when torch knows operator ``name``, from the compiled library or Triton."""
    return hasattr(torch.ops.nequip_fast, name)


_BUILD: str = torch.ops.nequip_fast.build_info() if compiled("build_info") else ""  # asked once: not when traced


def has_cuda_kernels() -> bool:
    """True when the library was built with nvcc, or the kernels are emulated."""
    return "cuda" in _BUILD or EMULATED


def choose(operator: str, tensor: Tensor, problem: str = "") -> str:
    """The backend that runs ``operator`` on ``tensor``'s device and dtype; ``problem`` is its text where it has one.

    Raises:
        InputError: the backend asked for by name cannot serve; the reason is in the message.
    """
    asked = get_backend()
    if asked == "reference":
        return "reference"
    device = tensor.device.type
    names = _in_order(device) if asked == "auto" else (asked,)
    reasons = [why_not(operator, name, device, tensor.dtype, problem) for name in names]
    for name, reason in zip(names, reasons, strict=True):
        if reason is None:
            return name
    if asked != "auto":
        raise InputError(f"backend {asked!r} cannot run {operator}: {reasons[0]}")
    if not torch.compiler.is_compiling():
        _say_once(operator, device, "; ".join(f"{n}: {reason}" for n, reason in zip(names, reasons, strict=True)))
    return "reference"


def _in_order(device: str) -> Sequence[str]:
    """The backends of a device, best first: while torch traces that is Triton, whose kernels become part of the trace.

    A model that torch exports then runs without this library.
    """
    names = DEVICES.get(device, (device,))
    if "triton" in names and traced():
        return sorted(names, key=lambda name: name != "triton")
    return names


def traced() -> bool:
    """Whether torch.compile, torch.export or make_fx traces: values are not known then."""
    if torch.compiler.is_compiling():
        return True
    proxy_tensor = sys.modules.get("torch.fx.experimental.proxy_tensor")  # importing it takes a tenth of a second
    return proxy_tensor is not None and proxy_tensor.get_proxy_mode() is not None


def can(operator: str, name: str, tensor: Tensor, problem: str = "") -> bool:
    """Whether backend ``name`` may and can run ``operator``, for what need not run as a kernel."""
    if get_backend() not in ("auto", name):
        return False
    return why_not(operator, name, tensor.device.type, tensor.dtype, problem) is None


def kernel(operator: str, tensor: Tensor) -> Any:
    """The operator of torch of the first backend that may and can run ``operator``; None: do without a kernel."""
    for name in KERNELS[operator]:
        if can(operator, name, tensor):
            return getattr(torch.ops.nequip_fast, f"triton_{operator}" if name == "triton" else operator)
    return None


def why_not(operator: str, name: str, device: str, dtype: torch.dtype, problem: str = "") -> str | None:
    """Why backend ``name`` cannot run ``operator`` on tensors of this device and dtype; None if it can.

    ``problem`` is the text of what is to be computed; without, the answer is for the problems that have kernels.
    """
    if name not in KERNELS[operator]:
        return f"it has no {name} kernel yet"
    missing = NO_TRITON if name == "triton" else NOT_LOADED
    if missing is not None:
        return missing
    on = {"cpu", "cuda"} if name == "triton" and INTERPRETED else {"cuda"} if name == "triton" else {name}
    if EMULATED and "cuda" in KERNELS[operator]:
        on = {"cuda": {"cpu"}, "cpu": set()}.get(name, on)
    if device not in on:
        return f"the inputs are on {device}"
    if dtype not in (torch.float32, torch.float64):
        return f"it takes float32 or float64, not {dtype}"
    if name == "cuda" and not has_cuda_kernels():
        return "the extension was built without nvcc"
    return (name == "cuda" and operator.startswith("conv") and problem and _not_compiled(problem)) or None


_reasons: dict[str, str] = {}  # no functools.cache: torch.compile would look through it


@torch.compiler.assume_constant_result
def _not_compiled(problem: str) -> str:
    """What paths of a convolution have no CUDA kernel; empty where all have."""
    if problem not in _reasons:
        _reasons[problem] = torch.ops.nequip_fast.cuda_conv_why_not(problem)
    return _reasons[problem]


@cache
def _say_once(operator: str, name: str, reason: str) -> None:
    warnings.warn(
        f"nequip_fast: {operator} runs as plain torch on {name}, many times slower than its kernel: {reason}",
        stacklevel=4,
    )
