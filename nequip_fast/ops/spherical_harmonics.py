"""``spherical_harmonics``: real spherical harmonics in e3nn's conventions, to l = 11.

y is the polar axis, components are ordered m = −l … l, and there is no Condon-Shortley phase; so in ``component``
normalisation (Σ_m Y_lm² = 2l + 1 on the unit sphere) Y_1 = √3 (x, y, z).

The first derivative and its derivative are compiled as well (:func:`~nequip_fast.ops.registration.operator_with_vjp`),
with the division by |r| and the normalisation inside. The kernels recompute what they need from the vectors, so that
nothing but them is kept for the derivatives.

Formulas: recurrences of the associated Legendre polynomials P_l^m(z, r²); gradients from the ladder operators of solid
harmonics, ∂z P_l^m = (l+m) P_{l−1}^m (r² not held) and ∂x P_l^m = −x P_{l−1}^{m+1} (e.g. Varshalovich, Quantum Theory
of Angular Momentum, §5.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, pi, sqrt
from typing import Any

import torch
from torch import Tensor

from nequip_fast.errors import InputError, nearest
from nequip_fast.ops import backend
from nequip_fast.ops.registration import by_backend, operator_with_vjp

MAX_L = 11
NORMALIZATIONS = ("component", "norm", "integral")


def spherical_harmonics(
    vectors: Tensor, degrees: int | Sequence[int], normalize: bool = True, normalization: str = "component"
) -> Tensor:
    """Y_lm of each vector, differentiable to any order.

    Args:
        vectors: [..., 3].
        degrees: the degrees l, 0 to 11, in the order of the output and with repeats as given; a number means all
            from 0 to it.
        normalize: take the direction of each vector only (a zero vector stays zero: Y_l>0 = 0);
            without it, degree l grows as |r|^l.
        normalization: ``component`` Σ_m Y_lm² = 2l + 1, ``norm`` Σ_m Y_lm² = 1, ``integral`` ∫ Y_lm² = 1
            (sum and integral over the unit sphere).

    Returns:
        [..., Σ (2l + 1)], same dtype as ``vectors``.

    Raises:
        InputError: wrong shape, degree or normalisation, or the backend chosen by name cannot serve.
    """
    ls = tuple(range(degrees + 1)) if isinstance(degrees, int) else tuple(degrees)
    if vectors.dim() == 0 or vectors.shape[-1] != 3:
        raise InputError(f"spherical_harmonics: vectors must be [..., 3], got {list(vectors.shape)}")
    if not ls or min(ls) < 0 or max(ls) > MAX_L:
        raise InputError(f"spherical_harmonics: degrees must be 0 to {MAX_L}, got {degrees}")
    if normalization not in NORMALIZATIONS:
        raise InputError(
            f"spherical_harmonics: normalization must be one of {', '.join(NORMALIZATIONS)}, "
            f"got {normalization!r}{nearest(normalization, NORMALIZATIONS)}"
        )
    return evaluate(vectors, ls, normalization, normalize)


def evaluate(vectors: Tensor, degrees: tuple[int, ...], normalization: str, normalize: bool) -> Tensor:
    """:func:`spherical_harmonics` of arguments known to be right."""
    chosen = backend.choose("spherical_harmonics", vectors)
    if chosen == "reference":
        return spherical_harmonics_reference(vectors, degrees, normalization, normalize)
    return _harmonics[chosen](vectors, degrees, normalization, normalize)


def spherical_harmonics_reference(
    vectors: Tensor, degrees: Sequence[int], normalization: str = "component", normalize: bool = True
) -> Tensor:
    """The definition in plain torch: Legendre recurrence times cos mφ and sin mφ."""
    if normalize:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    l_max = max(degrees)
    y, z, x = vectors.unbind(-1)  # e3nn's (x, y, z) with y polar, renamed so that z is polar below
    r2 = (vectors * vectors).sum(-1)
    cos, sin = [torch.ones_like(x)], [torch.zeros_like(x)]
    for m in range(l_max):
        cos.append(x * cos[m] - y * sin[m])
        sin.append(x * sin[m] + y * cos[m])
    legendre: dict[tuple[int, int], Tensor] = {}
    for m in range(l_max + 1):
        legendre[m, m] = torch.full_like(x, factorial(2 * m) / (2**m * factorial(m)))  # (2m − 1)!!
        for l in range(m + 1, l_max + 1):
            below = (l + m - 1) * r2 * legendre[l - 2, m] if l > m + 1 else 0.0
            legendre[l, m] = ((2 * l - 1) * z * legendre[l - 1, m] - below) / (l - m)
    columns = [
        _norm(l, abs(m)) * scale(l, normalization) * legendre[l, abs(m)] * (sin[-m] if m < 0 else cos[m])
        for l in degrees
        for m in range(-l, l + 1)
    ]
    return torch.stack(columns, -1)


def _norm(l: int, m: int) -> float:
    return sqrt((2 * l + 1) * (2 if m else 1) * factorial(l - m) / factorial(l + m))


def scale(l: int, normalization: str) -> float:
    """What the harmonics of degree l are in this normalisation over ``component``."""
    return {"component": 1.0, "norm": 1 / sqrt(2 * l + 1), "integral": 1 / sqrt(4 * pi)}[normalization]


# --- the operators: csrc/register.cpp has the schemas, csrc/cpu, csrc/cuda and nequip_fast/kernels the kernels ---


def _fake(vectors: Tensor, degrees: Sequence[int], *_: Any) -> Tensor:
    return vectors.new_empty(*vectors.shape[:-1], sum(2 * l + 1 for l in degrees))


_harmonics = by_backend(
    lambda prefix: operator_with_vjp(f"{prefix}spherical_harmonics", _fake, spherical_harmonics_reference)
)
