"""Scalar activation functions by name, their parity and the constant that keeps their second moment at one."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from e3nn.math import normalize2mom
from torch import Tensor
from torch.nn import functional

from nequip_fast.errors import InputError, nearest


def shifted_softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x)) - log 2``, zero at zero."""
    return functional.softplus(x) - math.log(2.0)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "tanh": torch.tanh,
    "abs": torch.abs,
    "ssp": shifted_softplus,
    "mish": functional.mish,
    "gelu": functional.gelu,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
}
_PARITY = {"tanh": -1, "abs": 1}  # f(-x) = parity f(x); the others have none


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function called ``name``.

    Raises:
        InputError: no activation has that name.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"unknown nonlinearity {name!r}{nearest(str(name), ACTIVATIONS)} ({', '.join(ACTIVATIONS)})")
    return ACTIVATIONS[name]


@lru_cache
def second_moment_factor(name: str) -> float:
    """``<f(z)²>^(-1/2)`` over normal ``z``: e3nn's Monte-Carlo value, so that weights trained with it still fit."""
    with torch.device("cpu"):
        factor = float(normalize2mom(activation(name)).cst)
    return 1.0 if abs(factor - 1.0) < 1e-4 else factor


def output_parity(name: str, parity_in: int) -> int:
    """Parity of ``f(x)`` for a scalar ``x`` of parity ``parity_in``.

    Raises:
        InputError: ``f`` is neither even nor odd and ``x`` is odd.
    """
    if parity_in == 1:
        return 1
    if name not in _PARITY:
        raise InputError(f"nonlinearity {name!r} is neither even nor odd: odd scalars need one of {', '.join(_PARITY)}")
    return _PARITY[name]
