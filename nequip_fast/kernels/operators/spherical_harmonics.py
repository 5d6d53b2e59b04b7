"""``spherical_harmonics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
from torch import Tensor

from nequip_fast.kernels import spherical_harmonics as harmonics
from nequip_fast.kernels.operators.launch import contiguous, launch, operator
from nequip_fast.kernels.table import harmonics_table

KERNELS = [harmonics.spherical_harmonics, harmonics.spherical_harmonics_vjp, harmonics.spherical_harmonics_vjp_grad]


@operator("nequip_fast::triton_spherical_harmonics", mutates_args={})
def triton_spherical_harmonics(vectors: Tensor, degrees: Sequence[int], normalization: str, normalize: bool) -> Tensor:
    """``spherical_harmonics``."""
    out = vectors.new_empty(*vectors.shape[:-1], sum(2 * l + 1 for l in degrees))
    _launch_harmonics(harmonics.spherical_harmonics, (out, vectors), out, degrees, normalization, normalize)
    return out


@operator("nequip_fast::triton_spherical_harmonics_vjp", mutates_args={})
def triton_spherical_harmonics_vjp(
    vectors: Tensor, g: Tensor, degrees: Sequence[int], normalization: str, normalize: bool
) -> Tensor:
    """The derivative of g · spherical_harmonics by the vectors."""
    to_v = vectors.new_empty(vectors.shape)
    _launch_harmonics(harmonics.spherical_harmonics_vjp, (to_v, vectors, g), g, degrees, normalization, normalize)
    return to_v


@operator("nequip_fast::triton_spherical_harmonics_vjp_grad", mutates_args={})
def triton_spherical_harmonics_vjp_grad(
    vectors: Tensor, g: Tensor, c: Tensor, degrees: Sequence[int], normalization: str, normalize: bool
) -> tuple[Tensor, Tensor]:
    """The derivatives of c · spherical_harmonics_vjp by the vectors and g."""
    to_v, to_g = vectors.new_empty(vectors.shape), g.new_empty(g.shape)
    tensors = to_v, to_g, vectors, g, c
    _launch_harmonics(harmonics.spherical_harmonics_vjp_grad, tensors, g, degrees, normalization, normalize)
    return to_v, to_g


_TILES = [{"ROWS": rows, "num_warps": rows // 32} for rows in (128, 32, 64)]


def _launch_harmonics(
    kernel: Any, tensors: tuple[Tensor, ...], like: Tensor, degrees: Sequence[int], normalization: str, normalize: bool
) -> None:
    rows = tensors[0].numel() // tensors[0].shape[-1]
    launch(
        kernel, lambda tile: triton.cdiv(rows, tile["ROWS"]), *contiguous(*tensors), rows, tiles=_TILES,
        HARMONICS=harmonics_table(tuple(degrees), normalization), NORMALIZED=normalize, WIDTH=like.shape[-1],
    )  # fmt: skip
