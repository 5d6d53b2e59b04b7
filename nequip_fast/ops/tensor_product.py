"""``tensor_product``: e3nn's weighted tensor product of two rows of irreps, every connection mode, one pass.

    out[b, k, m3] = Σ_paths c · Σ_{u, v} W · Σ_{m1, m2} C(m1, m2, m3) x[b, u, m1] y[b, v, m2]

is trilinear in (x, y, w); :class:`~nequip_fast.ops.product_paths.ProductPath` says how u, v, k and the index of the
weight W hang together in each mode, :mod:`nequip_fast.ops.trilinear` has the derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend
from nequip_fast.ops.product_paths import MODES, ProductProblem, batch_size
from nequip_fast.ops.registration import by_backend
from nequip_fast.ops.trilinear import TrilinearOperator


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
    chosen = backend.choose("tensor_product", x)
    if chosen == "reference":
        return tensor_product_reference(x, y, w, problem)
    return _product[chosen](x, y, w, problem.text)


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


def _check(x: Tensor, y: Tensor, w: Tensor, problem: ProductProblem) -> None:
    batch = batch_size(x, y, w)
    for name, tensor, dim in zip("xyw", (x, y, w), (problem.dim_x, problem.dim_y, problem.dim_w), strict=True):
        if tensor.dim() != 2 or tensor.shape[1] != dim or tensor.shape[0] not in (1, batch):
            raise InputError(f"tensor_product: {name} must be [{batch} or 1, {dim}], got {list(tensor.shape)}")
        if tensor.dtype != x.dtype or tensor.device != x.device:
            raise InputError(
                f"tensor_product: {name} is {tensor.dtype} on {tensor.device}, but x {x.dtype} on {x.device}"
            )


# --- the operators: csrc/register.cpp has the schemas, csrc/cpu/tensor_product and nequip_fast/kernels the kernels
# --- vmap: the mapped axis becomes part of the batch


def _product_vmap(
    product: TrilinearOperator, info: Any, in_dims: tuple[Any, ...], x: Tensor, y: Tensor, w: Tensor, text: str
) -> Any:
    size = info.batch_size
    operands = _mapped_first((x, y, w), in_dims)
    batch = _mapped_batch(operands, in_dims)
    if _maps_shared_weights(operands[2], in_dims[2], batch):
        return torch.stack([product(*_slice(operands, in_dims, k), text) for k in range(size)]), 0
    flat = [_flatten(t, dim, size, batch) for t, dim in zip(operands, in_dims, strict=False)]
    return product(*flat, text).view(size, batch, -1), 0


def _gradient_vmap(
    product: TrilinearOperator, info: Any, in_dims: tuple[Any, ...],
    x: Tensor, y: Tensor, w: Tensor, g: Tensor, *rest: Any,
) -> Any:  # fmt: skip
    size = info.batch_size
    need = rest[-3:]
    operands = _mapped_first((x, y, w, g), in_dims)
    batch = _mapped_batch(operands, in_dims)
    # a row that all samples share has one gradient for each of the mapped samples, so it is repeated for them
    dims = [0 if dim is None and needed else dim for dim, needed in zip(in_dims[:3], need, strict=True)] + [in_dims[3]]
    operands = [
        t.expand(size, *t.shape) if old is None and new == 0 else t
        for t, old, new in zip(operands, in_dims, dims, strict=False)
    ]
    out_dims = tuple(0 if needed else None for needed in need)
    if _maps_shared_weights(operands[2], dims[2], batch):
        slices = [product.product_gradient(*_slice(operands, dims, k), *rest) for k in range(size)]
        stacked = [
            torch.stack(some) if needed else some[0]
            for some, needed in zip(zip(*slices, strict=True), need, strict=True)
        ]
        return tuple(stacked), out_dims
    flat = [_flatten(t, dim, size, batch) for t, dim in zip(operands, dims, strict=True)]
    grads = list(product.product_gradient(*flat, *rest))
    for i, needed in enumerate(need):
        if needed:
            grads[i] = grads[i].view(size, batch, -1)
            if operands[i].shape[1] != batch:
                grads[i] = grads[i].sum(1, keepdim=True)
    return tuple(grads), out_dims


def _mapped_first(operands: Sequence[Tensor], in_dims: Sequence[int | None]) -> list[Tensor]:
    return [t if dim is None else t.movedim(dim, 0) for t, dim in zip(operands, in_dims, strict=False)]


def _mapped_batch(operands: Sequence[Tensor], dims: Sequence[int | None]) -> int:
    """B of each of the mapped products."""
    return batch_size(*(t if dim is None else t[0] for t, dim in zip(operands[:3], dims, strict=False)))


def _maps_shared_weights(w: Tensor, dim: int | None, batch: int) -> bool:
    """True where rows of weights, each shared by a whole batch, are mapped: repeating them would cost too much."""
    return dim is not None and w.shape[1] == 1 and batch > 1


def _slice(operands: Sequence[Tensor], dims: Sequence[int | None], k: int) -> list[Tensor]:
    return [t if dim is None else t[k] for t, dim in zip(operands, dims, strict=False)]


def _flatten(operand: Tensor, dim: int | None, size: int, batch: int) -> Tensor:
    """All rows of the mapped products one after the other; a row that all of them share stays one."""
    if dim is None and operand.shape[0] == 1:
        return operand
    return operand.expand(size, batch, -1).reshape(size * batch, -1)


def _fake(x: Tensor, y: Tensor, w: Tensor, text: str) -> Tensor:
    return x.new_empty(batch_size(x, y, w), ProductProblem.from_text(text).dim_out)


def _registered(prefix: str) -> TrilinearOperator:
    product: TrilinearOperator = TrilinearOperator(
        f"{prefix}tensor_product", ProductProblem, _fake,
        vmap=lambda *mapped: _product_vmap(product, *mapped),
        gradient_vmap=lambda *mapped: _gradient_vmap(product, *mapped),
    )  # fmt: skip
    return product


_product = by_backend(_registered)
