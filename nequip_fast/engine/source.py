"""What can be compiled: a trained model that can say what it computes, and compute it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from nequip_fast.engine.program import Program


class Source(Protocol):
    """A trained model, kept as it is.

    Attributes:
        type_names: chemical symbols of the types.
        r_max: largest cutoff, Å.
        dtype: of the network.
        cutoffs: ``per_edge_type_cutoff`` of the model, or None.
    """

    type_names: list[str]
    r_max: float
    dtype: torch.dtype
    cutoffs: Mapping[str, Any] | None

    def program(self) -> Program:
        """The model exactly, in float64."""
        ...

    def evaluate(self, graph: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Total energy [B, 1], forces [N, 3] and stress [B, 3, 3] of a graph of structures, by the model itself."""
        ...
