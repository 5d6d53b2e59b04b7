"""``product_with_rows``: a tensor product with scalar attributes that are rows of a table, as those of atoms are.

    product_with_rows(x, table, row, w) = tensor_product(x, table[row], w)

for 'uvw' paths with scalars y, of which there are as many different ones as types of atoms. The weights are contracted
with each row of the table once, W'[r][u, k] = Σ_v table[r, v] W[u, v, k], by ``contract_attributes``; ``mix_by_row``
then takes x to the output by the matrices of its row. Both are linear in each of their two operands,
:mod:`nequip_fast.ops.bilinear` has the derivatives: in a step of training the weights are read twice and their
gradients written once, however often x is differentiated by.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend
from nequip_fast.ops.bilinear import BilinearOperator
from nequip_fast.ops.product_paths import ProductProblem
from nequip_fast.ops.tensor_product import tensor_product


def product_with_rows(x: Tensor, table: Tensor, row: Tensor, w: Tensor, problem: ProductProblem) -> Tensor:
    """``tensor_product(x, table[row], w[None], problem)``, differentiable to any order.

    Every row of the table costs as much as a sample of its own: leave those out that no sample names.

    Args:
        x: [B, dim_x], e3nn's ``mul_ir`` layout.
        table: [rows, dim_y].
        row: [B] int64, which row of the table belongs to each row of x.
        w: [dim_w], shared by all.
        problem: the paths.

    Returns:
        [B, dim_out].

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    if (
        (x.dim(), table.dim(), w.dim()) != (2, 2, 1)
        or (x.shape[1], table.shape[1], w.shape[0]) != (problem.dim_x, problem.dim_y, problem.dim_w)
        or row.shape != x.shape[:1]
        or row.dtype != torch.int64
    ):
        raise InputError(
            f"product_with_rows: expected x [B, {problem.dim_x}], table [rows, {problem.dim_y}], row [B] int64 and w "
            f"[{problem.dim_w}], got {list(x.shape)}, {list(table.shape)}, {list(row.shape)} {row.dtype} and "
            f"{list(w.shape)}"
        )
    same = {(t.dtype, t.device) for t in (x, table, w)}
    if len(same) > 1 or not problem.has_scalar_attributes() or not backend.can("attributes", "cpu", x):
        return tensor_product(x, table.index_select(0, row), w.unsqueeze(0), problem)
    return _mix(x, _contract(table, w, problem.text), row, problem.text)


# --- the operators: csrc/register.cpp has the schemas, csrc/cpu/tensor_product the kernels ---


def _contract_fake(table: Tensor, w: Tensor, text: str) -> Tensor:
    return table.new_empty(table.shape[0], sum(p.mul1 * p.mul3 for p in ProductProblem.from_text(text).paths))


def _mix_fake(x: Tensor, w: Tensor, row: Tensor, text: str) -> Tensor:
    return x.new_empty(x.shape[0], ProductProblem.from_text(text).dim_out)


_contract = BilinearOperator("contract_attributes", _contract_fake)
_mix = BilinearOperator("mix_by_row", _mix_fake, constant_tensors=1)
