"""Scalar activation functions and their names, their parity and the constant that keeps their second moment at one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from e3nn.math import normalize2mom
from torch import Tensor
from torch.nn import functional

from nequip_fast.errors import InputError, nearest
from nequip_fast.ops.gate import ACTIVATIONS as FUSED
from nequip_fast.ops.gate import NamedActivation

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: FUSED[name] for name in ("silu", "tanh", "abs", "ssp", "mish", "sigmoid", "softplus")},
    "gelu": functional.gelu,
}
NO_KERNEL = "one of its activation functions has no kernel"
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


# other spellings of the functions that have kernels, and modules that have nothing to set
_NAMES: dict[object, str] = {
    **{function: name for name, function in FUSED.items()},
    functional.tanh: "tanh",
    functional.sigmoid: "sigmoid",
    functional.relu: "relu",
    torch.Tensor.tanh: "tanh",
    torch.Tensor.sigmoid: "sigmoid",
    torch.Tensor.abs: "abs",
}
_MODULES = {torch.nn.SiLU: "silu", torch.nn.Tanh: "tanh", torch.nn.Sigmoid: "sigmoid", torch.nn.Mish: "mish"}


def named_activations(acts: Iterable[normalize2mom | None], by_value: bool = False) -> list[NamedActivation] | None:
    """(name, constant) of each function of an ``e3nn.nn.Activation``, for the kernels; None if one has no kernel.

    Args:
        by_value: take a function for the one that it agrees with, whatever object it is.
    """
    named: list[NamedActivation] = []
    for act in acts:
        name = "identity" if act is None else _MODULES.get(type(act.f)) or _known(act.f)
        if name is None and by_value and act is not None:
            name = name_by_value(act.f)
        if name is None:
            return None
        named.append((name, 1.0 if act is None or act._is_id else act.cst))
    return named


def name_by_value(function: Callable[[Tensor], Tensor]) -> str | None:
    """The name of the function with a kernel that ``function`` agrees with from -4 to 4; None if there is none."""
    if isinstance(function, torch.nn.Module) and next(function.parameters(), None) is not None:
        return None  # it will be another function tomorrow
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    values = function(x)
    return next((n for n, named in FUSED.items() if torch.allclose(named(x), values, rtol=1e-12, atol=1e-14)), None)


def _known(function: object) -> str | None:
    try:
        return _NAMES.get(function)
    except TypeError:  # a callable object without a hash
        return None
