"""``tensor_product``: e3nn's weighted tensor product of two rows of irreps, every connection mode, one pass.

    out[b, k, m3] = Σ_paths c · Σ_{u, v} W · Σ_{m1, m2} C(m1, m2, m3) x[b, u, m1] y[b, v, m2]

is trilinear in (x, y, w); :class:`~nequip_fast.ops.product_paths.ProductPath` says how u, v, k and the index of the
weight W hang together in each mode.
"""

from __future__ import annotations

from math import prod

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend
from nequip_fast.ops.product_paths import MODES, ProductProblem


def tensor_product(x: Tensor, y: Tensor, w: Tensor, problem: ProductProblem) -> Tensor:
    """Tensor product of each row of x with the same row of y, differentiable to any order.

    An operand of one row is shared by all B rows of the others; its gradient is the sum over them.

    Args:
        x: [B or 1, dim_x], e3nn's ``mul_ir`` layout.
        y: [B or 1, dim_y].
        w: weights [B or 1, dim_w], e3nn's order; dim_w may be 0.
        problem: the paths.

    Returns:
        [B, dim_out], same dtype and device as x; zero in columns that no path reaches.

    Raises:
        InputError: shapes, dtypes or devices do not fit, or the backend chosen by name cannot serve.
    """
    _check(x, y, w, problem)
    backend.choose("tensor_product", x)
    return tensor_product_reference(x, y, w, problem)


def tensor_product_reference(x: Tensor, y: Tensor, w: Tensor, problem: ProductProblem) -> Tensor:
    """The definition in plain torch: one einsum a path."""
    out = x.new_zeros(batch_size(x, y, w), problem.dim_out)
    for path in problem.paths:
        mode, n1, n2, n3 = MODES[path.mode], 2 * path.l1 + 1, 2 * path.l2 + 1, 2 * path.l3 + 1
        cg = o3.wigner_3j(path.l1, path.l2, path.l3, dtype=torch.float64).to(x) * path.coefficient
        x_path = x[:, path.x : path.x + path.mul1 * n1].unflatten(1, (path.mul1, n1))
        y_path = y[:, path.y : path.y + path.mul2 * n2].unflatten(1, (path.mul2, n2))
        if mode.over_pairs:
            first, second = torch.triu_indices(path.mul1, path.mul1, 1, device=x.device)
            x_path, y_path = x_path[:, first], y_path[:, second]
        shape = tuple(path.sizes[letter] for letter in mode.weight)
        weights = x.new_ones(1, *shape) if path.w < 0 else w[:, path.w : path.w + prod(shape)].unflatten(1, shape)
        equation = f"z{mode.weight},z{mode.x}i,z{mode.y}j,ijk->z{mode.out}k"
        block = torch.einsum(equation, weights, x_path, y_path, cg).flatten(1)
        columns = torch.arange(path.out, path.out + path.mul3 * n3, device=x.device)
        out = out.index_add(1, columns, block.expand(out.shape[0], -1))
    return out


def batch_size(*operands: Tensor) -> int:
    """B: the rows of the operands that have not just one to share."""
    return next((operand.shape[0] for operand in operands if operand.shape[0] != 1), 1)


def _check(x: Tensor, y: Tensor, w: Tensor, problem: ProductProblem) -> None:
    batch = batch_size(x, y, w)
    for name, tensor, dim in zip("xyw", (x, y, w), (problem.dim_x, problem.dim_y, problem.dim_w), strict=True):
        if tensor.dim() != 2 or tensor.shape[1] != dim or tensor.shape[0] not in (1, batch):
            raise InputError(f"tensor_product: {name} must be [{batch} or 1, {dim}], got {list(tensor.shape)}")
        if tensor.dtype != x.dtype or tensor.device != x.device:
            raise InputError(
                f"tensor_product: {name} is {tensor.dtype} on {tensor.device}, but x {x.dtype} on {x.device}"
            )
