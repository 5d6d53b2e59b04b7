"""e3nn under torch.compile (inductor): e3nn at its best, where a compiler is at hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from bench.peers import e3nn
from bench.problems import ConvCase, HarmonicsCase

NAME = "e3nn-compiled"
DIFFERENTIATES_TWICE = False  # torch.compile does not support it


def missing() -> str | None:
    """Inductor needs a C++ compiler on the CPU."""
    return None if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler for torch.compile"


def conv(case: ConvCase, dtype: torch.dtype, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The eager adapter's function, compiled; e3nn's product is built without TorchScript for it."""
    from e3nn import get_optimization_defaults, set_optimization_defaults

    before = get_optimization_defaults()
    set_optimization_defaults(jit_mode="eager")
    try:
        return torch.compile(e3nn.conv(case, dtype, device))
    finally:
        set_optimization_defaults(**before)


def harmonics(case: HarmonicsCase, dtype: torch.dtype, device: str) -> Callable[[Tensor], Tensor]:
    """Compiled polynomials."""
    return torch.compile(e3nn.harmonics(case, dtype, device))
