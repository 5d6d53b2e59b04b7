"""``radial``: Bessel functions of an edge's length with a smooth envelope, in float64, cast once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend
from nequip_fast.ops.registration import by_backend, operator_with_vjp


def polynomial_cutoff(x: Tensor, p: float) -> Tensor:
    """``1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2)`` for x < 1, else 0 (DimeNet, arXiv:2003.03123)."""
    a, b, c = -(p + 1.0) * (p + 2.0) / 2.0, p * (p + 2.0), -p * (p + 1.0) / 2.0
    return (1.0 + x.pow(p) * (a + x * (b + x * c))) * (x < 1.0)


def radial(x: Tensor, roots: Tensor, p: float, factor: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """``factor · sin(π root x) / (π x)`` for each root, times :func:`polynomial_cutoff`; differentiable to any order.

    Args:
        x: edge lengths over their cutoff [..., 1], float64, not zero.
        roots: [n], float64; 1, 2, … n are those of the spherical Bessel function of order 0. Where they are to be
            differentiated the definition serves.
        p: exponent of the envelope, at least 2.
        factor: a constant.
        dtype: of the result, float32 or float64; the arithmetic is float64.

    Returns:
        [..., n].

    Raises:
        InputError: shapes or dtypes do not fit, or the backend chosen by name cannot serve.
    """
    if x.dim() < 1 or x.shape[-1] != 1 or roots.dim() != 1:
        raise InputError(f"radial: x must be [..., 1] and roots [n], got {list(x.shape)} and {list(roots.shape)}")
    if not x.dtype == roots.dtype == torch.float64 or dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"radial: x and roots must be float64 and the result float32 or float64, got {x.dtype}, {roots.dtype} "
            f"and {dtype}"
        )
    if torch.compiler.is_compiling():  # it traces the first question, not the second, which asks of the roots alone
        mapped = torch._C._are_functorch_transforms_active()
    else:
        mapped = torch._C._functorch.is_functorch_wrapped_tensor(roots)
    differentiated = roots.requires_grad or mapped
    chosen = "reference" if differentiated else backend.choose("radial", x)
    single = dtype == torch.float32
    if chosen == "reference":
        return radial_reference(x, p, factor, roots, single)
    return _radial[chosen](x, p, factor, roots, single)


def radial_reference(x: Tensor, p: float, factor: float, roots: Tensor, single: bool) -> Tensor:
    """The definition in plain torch; ``single``: the result is float32."""
    envelope = polynomial_cutoff(x, p) * (factor / math.pi) / x
    return (torch.sin(x * (roots * math.pi)) * envelope).to(torch.float32 if single else torch.float64)


# --- the operators: csrc/register.cpp has the schemas, csrc/cpu, csrc/cuda and nequip_fast/kernels the kernels ---


def _fake(x: Tensor, p: float, factor: float, roots: Tensor, single: bool) -> Tensor:
    return x.new_empty(*x.shape[:-1], roots.shape[0], dtype=torch.float32 if single else torch.float64)


_radial = by_backend(lambda prefix: operator_with_vjp(f"{prefix}radial", _fake, radial_reference))
