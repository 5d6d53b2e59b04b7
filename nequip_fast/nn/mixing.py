"""Blocks of a feature vector."""

from __future__ import annotations

from e3nn.o3 import Irreps


def block_dims(irreps: Irreps) -> list[int]:
    """Sizes that split a feature vector into its blocks."""
    return [block.dim for block in irreps]
