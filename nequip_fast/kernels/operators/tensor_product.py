"""``tensor_product``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import triton
from torch import Tensor

from nequip_fast.kernels import tensor_product
from nequip_fast.kernels.operators.launch import contiguous, launch, operator
from nequip_fast.kernels.product_table import product_table, weight_blocks_before, weighted
from nequip_fast.kernels.table import Part
from nequip_fast.kernels.tuning import Tile
from nequip_fast.ops.product_paths import batch_size

KERNELS = [tensor_product.contract, tensor_product.contract_weights, tensor_product.contract_weights_of_rows]


@operator("nequip_fast::triton_tensor_product", mutates_args={})
def triton_tensor_product(x: Tensor, y: Tensor, w: Tensor, text: str) -> Tensor:
    """``tensor_product``."""
    return _contracted("out", x, y, w, batch_size(x, y, w), text)


@operator("nequip_fast::triton_tensor_product_tangent", mutates_args={})
def triton_tensor_product_tangent(
    x: Tensor, y: Tensor, w: Tensor, dx: Tensor | None, dy: Tensor | None, dw: Tensor | None, text: str
) -> Tensor:
    """Its derivative along (dx, dy, dw)."""
    rows = batch_size(x, y, w)
    return _summed(
        x, True,
        (dx, lambda d: _contracted("out", d, y, w, rows, text)),
        (dy, lambda d: _contracted("out", x, d, w, rows, text)),
        (dw, lambda d: _contracted("out", x, y, d, rows, weighted(text))),
    )  # fmt: skip


@operator("nequip_fast::triton_tensor_product_gradient", mutates_args={})
def triton_tensor_product_gradient(
    x: Tensor, y: Tensor, w: Tensor, g: Tensor, text: str, want_x: bool, want_y: bool, want_w: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of g · tensor_product by x, y and w."""
    return (
        _contracted_to(x, "x", g, y, w, text) if want_x else _none_of(x),
        _contracted_to(y, "y", g, x, w, text) if want_y else _none_of(y),
        _contracted_to_weights(w, x, y, g, text) if want_w else _none_of(w),
    )


@operator("nequip_fast::triton_tensor_product_gradient_tangent", mutates_args={})
def triton_tensor_product_gradient_tangent(
    x: Tensor, y: Tensor, w: Tensor, g: Tensor, dx: Tensor | None, dy: Tensor | None, dw: Tensor | None, text: str,
    want_x: bool, want_y: bool, want_w: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The derivatives of those along (dx, dy, dw)."""
    linear = weighted(text)
    to_x = _summed(
        x, want_x,
        (dy, lambda d: _contracted_to(x, "x", g, d, w, text)),
        (dw, lambda d: _contracted_to(x, "x", g, y, d, linear)),
    )  # fmt: skip
    to_y = _summed(
        y, want_y,
        (dx, lambda d: _contracted_to(y, "y", g, d, w, text)),
        (dw, lambda d: _contracted_to(y, "y", g, x, d, linear)),
    )  # fmt: skip
    to_w = _summed(
        w, want_w,
        (dx, lambda d: _contracted_to_weights(w, d, y, g, text)),
        (dy, lambda d: _contracted_to_weights(w, x, d, g, text)),
    )  # fmt: skip
    return to_x, to_y, to_w


def _none_of(tensor: Tensor) -> Tensor:
    return tensor.new_empty(0, tensor.shape[1])


def _summed(like: Tensor, wanted: bool, *terms: tuple[Tensor | None, Callable[[Tensor], Tensor]]) -> Tensor:
    """The terms whose tangent is not zero, each a function of it."""
    if not wanted:
        return _none_of(like)
    values = [term(tangent) for tangent, term in terms if tangent is not None]
    return sum(values[1:], values[0]) if values else torch.zeros_like(like)


_CHUNKS = 32  # of rows, whose gradients of shared weights are summed apart


@cache
def _tiles(dtype: torch.dtype, pairs: bool = True) -> list[Tile]:
    """Blocks of rows, channels and, where asked for, pairs; the first has registers and shared memory on any GPU."""
    rows, of_pairs = 32 if dtype == torch.float32 else 16, {"PAIRS": 32} if pairs else {}
    return [
        {"ROWS": rows * more, "LANES": lanes, **of_pairs, "num_warps": warps, "num_stages": 2}
        for more, lanes, warps in ((1, 32, 4), (1, 32, 2), (1, 32, 8), (2, 32, 4), (2, 32, 8), (1, 64, 4), (1, 64, 8))
    ]


def _contracted(target: str, a: Tensor, b: Tensor, w: Tensor, rows: int, text: str) -> Tensor:
    """[rows, width of the target]."""
    paths = product_table(text, target)
    a, b, w = contiguous(a, b, w)
    results = []
    for layer, covered in zip(paths.layers, paths.covered, strict=True):
        out = (a.new_empty if covered else a.new_zeros)(rows, paths.width)
        for part in layer:
            launch(
                tensor_product.contract,
                partial(_programs_of_rows, part, rows),
                out, a, b, w, rows, tiles=_tiles(a.dtype), TABLE=part.text, TARGET=target, WIDTH=paths.width,
                **_row_strides(A=a, B=b, W=w), PRECISION="ieee",
            )  # fmt: skip
        results.append(out)
    return sum(results[1:], results[0]) if results else a.new_zeros(rows, paths.width)


def _contracted_to(operand: Tensor, target: str, g: Tensor, other: Tensor, w: Tensor, text: str) -> Tensor:
    """The gradient of x or y, summed over the rows where all share one."""
    result = _contracted(target, g, other, w, g.shape[0], text)
    return result.sum(0, keepdim=True) if operand.shape[0] == 1 else result


def _contracted_to_weights(w: Tensor, x: Tensor, y: Tensor, g: Tensor, text: str) -> Tensor:
    paths = product_table(text, "w")
    rows, width = g.shape[0], w.shape[1]
    shared = w.shape[0] == 1
    chunk = -(-rows // _CHUNKS // 32) * 32 or 32
    chunks = triton.cdiv(rows, chunk) if shared else rows
    out = (w.new_empty if paths.covered == [True] else w.new_zeros)(chunks, width)
    x, y, g = contiguous(x, y, g)
    strides = {**_row_strides(A=x, B=y), "ROW_G": g.shape[1]}
    for part in itertools.chain(*paths.layers):
        if shared:
            launch(
                tensor_product.contract_weights,
                partial(_programs_of_chunks, part, chunks),
                out, x, y, g, rows, chunk, tiles=_tiles(w.dtype), TABLE=part.text, WIDTH=width, **strides,
                PRECISION="ieee",
            )  # fmt: skip
        else:
            launch(
                tensor_product.contract_weights_of_rows,
                partial(_programs_of_rows, part, rows),
                out, x, y, g, rows, tiles=_tiles(w.dtype, pairs=False),
                TABLE=part.text, WIDTH=width, **strides,
            )  # fmt: skip
    return out.sum(0, keepdim=True) if shared else out


def _programs_of_rows(part: Part, rows: Any, tile: Tile) -> Any:
    return part.blocks(tile["LANES"]) * triton.cdiv(rows, tile["ROWS"])


def _programs_of_chunks(part: Part, chunks: Any, tile: Tile) -> Any:
    return chunks * weight_blocks_before(part.text, len(part.groups), tile["PAIRS"], tile["LANES"])


def _row_strides(**operands: Tensor) -> dict[str, int]:
    return {f"ROW_{name}": 0 if t.shape[0] == 1 else t.shape[1] for name, t in operands.items()}
