"""e3nn under torch.compile (inductor): e3nn at its best, where a compiler is at hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.calls import FORWARD
from bench.peers import e3nn
from bench.problems import Case, ConvCase, HarmonicsCase, ModuleCase

NAME = "e3nn-compiled"
FAMILY = e3nn.FAMILY
DIFFERENTIATES_TWICE = False  # torch.compile does not support it

_MOST_PATHS = 30
_FIRST_LAYERS = {"conv-l3i5-first", "conv-oam-l-first", "conv-nequix-first"}


def missing() -> str | None:
    """Inductor needs a C++ compiler on the CPU."""
    return None if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler for torch.compile"


def left_out(case: Case, mode: str, device: str) -> str | None:
    """What would take the run's time, or end it: with torch 2.13.0 and two threads, double free or crash."""
    if isinstance(case, ConvCase) and len(case.problem().paths) > _MOST_PATHS:
        return f"inductor takes many minutes to compile more than {_MOST_PATHS} paths"
    if device == "cpu" and case.name in _FIRST_LAYERS and mode != FORWARD:
        return "the code inductor makes for the gradient of a layer of scalars corrupts memory"
    return None


@contextmanager
def _without_torchscript() -> Iterator[None]:
    """e3nn's code as plain Python, which torch.compile can read."""
    from e3nn import get_optimization_defaults, set_optimization_defaults

    before = get_optimization_defaults()
    set_optimization_defaults(jit_mode="eager")
    try:
        yield
    finally:
        set_optimization_defaults(**before)


def conv(case: ConvCase, dtype: torch.dtype, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The eager adapter's function, compiled."""
    with _without_torchscript():
        return torch.compile(e3nn.conv(case, dtype, device))


def harmonics(case: HarmonicsCase, dtype: torch.dtype, device: str) -> Callable[[Tensor], Tensor]:
    """Compiled polynomials."""
    return torch.compile(e3nn.harmonics(case, dtype, device))


def module(case: ModuleCase, dtype: torch.dtype, device: str) -> torch.nn.Module:
    """Compiled module."""
    with _without_torchscript():
        built = e3nn.module(case, dtype, device)
    built.compile()
    return built
