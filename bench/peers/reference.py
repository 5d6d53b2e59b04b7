"""nequip_fast's plain-torch definitions: what a backend without kernels costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.problems import ConvCase, HarmonicsCase
from nequip_fast.ops import Graph
from nequip_fast.ops.conv import conv_reference
from nequip_fast.ops.spherical_harmonics import spherical_harmonics_reference

NAME = "reference"


def missing() -> str | None:
    """Never."""
    return None


def conv(case: ConvCase, dtype: torch.dtype, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """One einsum per path."""
    problem, graph = case.problem(), Graph(*(t.to(device) for t in case.graph()))
    return lambda x, y, w: conv_reference(x, y, w, graph, problem)


def harmonics(case: HarmonicsCase, dtype: torch.dtype, device: str) -> Callable[[Tensor], Tensor]:
    """Recurrences in torch."""
    return lambda v: spherical_harmonics_reference(v, range(case.l_max + 1))
