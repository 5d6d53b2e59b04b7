"""``spherical_harmonics``: real spherical harmonics in e3nn's conventions, to l = 11.

Conventions: y is the polar axis, components ordered m = −l … l, ``component`` normalisation
(Σ_m Y_lm² = 2l + 1 on the unit sphere), no Condon-Shortley phase; so Y_1 = √3 (x, y, z).

The kernels compute *solid* harmonics r^l Y_lm, polynomials whose gradient is a sparse constant matrix
times the harmonics of degree l − 1: ∂_a Y_k = Σ_j D[a, k, j] Y_j. All derivatives, of any order, are
therefore built from the harmonics and three contractions of D:

    harmonics_vjp(Y, g)_a = Σ_kj D[a,k,j] g_k Y_j      harmonics_jvp(Y, c)_k = Σ_aj D[a,k,j] c_a Y_j
    harmonics_pull(g, c)_j = Σ_ak D[a,k,j] g_k c_a

Formulas: recurrences of the associated Legendre polynomials; gradients from the ladder operators of
solid harmonics, (∂x − i∂y) S_l^m = (l+m)(l+m−1) S_{l−1}^{m−1}, (∂x + i∂y) S_l^m = −S_{l−1}^{m+1},
∂z S_l^m = (l+m) S_{l−1}^m (e.g. Varshalovich, Quantum Theory of Angular Momentum, §5.8).
"""

from __future__ import annotations

from math import factorial, sqrt
from typing import Any

import torch
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend

MAX_L = 11


def spherical_harmonics(vectors: Tensor, l_max: int, normalize: bool = True) -> Tensor:
    """Y_lm of each vector for l = 0 … l_max, ``component`` normalisation, differentiable to any order.

    Args:
        vectors: [E, 3].
        l_max: highest degree, 0 to 11.
        normalize: take the direction of each vector only (a zero vector stays zero: Y_l>0 = 0);
            without it, degree l grows as |r|^l.

    Returns:
        [E, (l_max + 1)²], same dtype as ``vectors``.

    Raises:
        InputError: wrong shape or l_max, or the backend chosen by name cannot serve.
    """
    if vectors.dim() != 2 or vectors.shape[1] != 3:
        raise InputError(f"spherical_harmonics: vectors must be [E, 3], got {list(vectors.shape)}")
    if not 0 <= l_max <= MAX_L:
        raise InputError(f"spherical_harmonics: l_max must be 0 to {MAX_L}, got {l_max}")
    if normalize:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    if backend.choose("spherical_harmonics", vectors) == "reference":
        return spherical_harmonics_reference(vectors, l_max)
    return torch.ops.nequip_fast.solid_harmonics(vectors, l_max)


def spherical_harmonics_reference(vectors: Tensor, l_max: int) -> Tensor:
    """Solid harmonics r^l Y_lm in plain torch: Legendre recurrence times cos mφ and sin mφ."""
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
        _norm(l, abs(m)) * legendre[l, abs(m)] * (sin[-m] if m < 0 else cos[m])
        for l in range(l_max + 1)
        for m in range(-l, l + 1)
    ]
    return torch.stack(columns, -1)


def _norm(l: int, m: int) -> float:
    return sqrt((2 * l + 1) * (2 if m else 1) * factorial(l - m) / factorial(l + m))


# --- the compiled operators ---


def _harmonics_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _harmonics_backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
    (y,) = ctx.saved_tensors
    return torch.ops.nequip_fast.harmonics_vjp(y, g), None


def _pair_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _vjp_backward(ctx: Any, c: Tensor) -> tuple[Tensor, Tensor]:
    y, g = ctx.saved_tensors
    return torch.ops.nequip_fast.harmonics_pull(g, c), torch.ops.nequip_fast.harmonics_jvp(y, c)


def _jvp_backward(ctx: Any, k: Tensor) -> tuple[Tensor, Tensor]:
    y, c = ctx.saved_tensors
    return torch.ops.nequip_fast.harmonics_pull(k, c), torch.ops.nequip_fast.harmonics_vjp(y, k)


def _pull_backward(ctx: Any, q: Tensor) -> tuple[Tensor, Tensor]:
    g, c = ctx.saved_tensors
    return torch.ops.nequip_fast.harmonics_jvp(q, c), torch.ops.nequip_fast.harmonics_vjp(q, g)


if backend.compiled("solid_harmonics"):

    @torch.library.register_fake("nequip_fast::solid_harmonics")
    def _(vectors, l_max):
        return vectors.new_empty(vectors.shape[0], (l_max + 1) ** 2)

    @torch.library.register_fake("nequip_fast::harmonics_vjp")
    def _(y, g):
        return y.new_empty(y.shape[0], 3)

    @torch.library.register_fake("nequip_fast::harmonics_jvp")
    def _(y, c):
        return y.new_empty(y.shape)

    @torch.library.register_fake("nequip_fast::harmonics_pull")
    def _(g, c):
        return g.new_empty(g.shape)

    torch.library.register_autograd(
        "nequip_fast::solid_harmonics", _harmonics_backward, setup_context=_harmonics_setup
    )  # fmt: skip
    torch.library.register_autograd("nequip_fast::harmonics_vjp", _vjp_backward, setup_context=_pair_setup)
    torch.library.register_autograd("nequip_fast::harmonics_jvp", _jvp_backward, setup_context=_pair_setup)
    torch.library.register_autograd("nequip_fast::harmonics_pull", _pull_backward, setup_context=_pair_setup)
