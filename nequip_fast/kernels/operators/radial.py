"""``radial``."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from nequip_fast.kernels import radial
from nequip_fast.kernels.operators.launch import contiguous, launch, operator

KERNELS = [radial.radial, radial.radial_vjp, radial.radial_vjp_grad]


@operator("nequip_fast::triton_radial", mutates_args={})
def triton_radial(x: Tensor, p: float, factor: float, roots: Tensor, single: bool) -> Tensor:
    """``radial``."""
    out = x.new_empty(*x.shape[:-1], roots.shape[0], dtype=torch.float32 if single else torch.float64)
    _launch_radial(radial.radial, (out, x), x, p, factor, roots)
    return out


@operator("nequip_fast::triton_radial_vjp", mutates_args={})
def triton_radial_vjp(x: Tensor, g: Tensor, p: float, factor: float, roots: Tensor, single: bool) -> Tensor:
    """The derivative of g · radial by x."""
    to_x = x.new_empty(x.shape)
    _launch_radial(radial.radial_vjp, (to_x, x, g), x, p, factor, roots)
    return to_x


@operator("nequip_fast::triton_radial_vjp_grad", mutates_args={})
def triton_radial_vjp_grad(
    x: Tensor, g: Tensor, c: Tensor, p: float, factor: float, roots: Tensor, single: bool
) -> tuple[Tensor, Tensor]:
    """The derivatives of c · radial_vjp by x and g."""
    to_x, to_g = x.new_empty(x.shape), g.new_empty(g.shape)
    _launch_radial(radial.radial_vjp_grad, (to_x, to_g, x, g, c), x, p, factor, roots)
    return to_x, to_g


def _launch_radial(kernel: Any, tensors: tuple[Tensor, ...], x: Tensor, p: float, factor: float, roots: Tensor) -> None:
    rows, count = x.numel(), int(roots.shape[0])
    launch(
        kernel, lambda tile: triton.cdiv(rows, tile["ROWS"]), *contiguous(*tensors, roots), rows,
        tiles=[{"ROWS": 8 * warps, "num_warps": warps} for warps in (4, 1, 2)],
        P=p, FACTOR=factor, COUNT=count, SIZE=triton.next_power_of_2(max(count, 1)),
    )  # fmt: skip
