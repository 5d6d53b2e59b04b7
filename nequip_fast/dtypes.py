"""The dtype that modules are built in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default dtype within the block, put back afterwards even if the block changes it.

    e3nn's modules take no dtype: weights and Clebsch-Gordan constants are made in the default one, and converting a
    module afterwards leaves the constants rounded.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
