"""Drop-in for ``e3nn.o3.Linear``: one matrix product for each pair of blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import e3nn
import torch
from e3nn import o3
from e3nn.util.jit import compile_mode
from torch import Tensor

from nequip_fast.o3.errors import IrrepIndexError, MissingWeights, ShapeError, require
from nequip_fast.o3.instructions import check_choice


class _Block(NamedTuple):
    """An instruction: ``mul_in`` copies from column ``start`` of x times a matrix, into output block ``i_out``."""

    start: int
    mul_in: int
    mul_out: int
    dim: int
    at_weight: int
    i_out: int
    factor: float


@compile_mode("unsupported")
class Linear(o3.Linear):
    """``e3nn.o3.Linear``: ``y[w, m] = Σ_u x[u, m] W[u, w] / √fan-in`` for irreps that both sides have.

    Arguments, normalisation, initial weights, attributes and ``repr`` are inherited; what is replaced is the code that
    e3nn generates (``_optimize_einsums`` is kept and changes nothing).

    Shapes: features [..., irreps_in.dim] -> [..., irreps_out.dim], with ``f_in`` and ``f_out`` [..., f_in,
    irreps_in.dim] -> [..., f_out, irreps_out.dim]. Weights are [(f_in, f_out,) weight_numel], those that are not
    shared [..., (f_in, f_out,) weight_numel]; biases [(f_out,) bias_numel].

    Raises:
        InputError: instructions or biases that do not fit the irreps.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        *,
        f_in: int | None = None,
        f_out: int | None = None,
        internal_weights: bool | None = None,
        shared_weights: bool | None = None,
        instructions: Sequence[tuple[int, int]] | None = None,
        biases: bool | Sequence[bool] = False,
        path_normalization: str = "element",
        _optimize_einsums: bool | None = None,
    ) -> None:
        irreps_in, irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
        for instruction in instructions or ():
            _check_instruction(instruction, irreps_in, irreps_out)
        check_choice("path_normalization", path_normalization, ("element", "path"))
        if not isinstance(biases, bool) and biases is not None:
            scalars = [ir.is_scalar() for _, ir in irreps_out]
            require(
                len(biases) == len(scalars) and all(s or not b for b, s in zip(biases, scalars, strict=True)),
                f"biases must say for each irrep of {irreps_out} whether it has one, True only for 0e; got {biases}",
            )
        require(
            shared_weights is not False or not internal_weights,
            "internal_weights and shared_weights=False exclude each other: weights of a row come from outside",
        )
        super().__init__(
            irreps_in,
            irreps_out,
            f_in=f_in,
            f_out=f_out,
            internal_weights=internal_weights,
            shared_weights=shared_weights,
            instructions=instructions,
            biases=biases,
            path_normalization=path_normalization,
            _optimize_einsums=False,  # e3nn's code is generated and dropped: at least do not optimise it
        )
        default = e3nn.get_optimization_defaults()["optimize_einsums"]
        self._optimize_einsums = default if _optimize_einsums is None else _optimize_einsums
        self._f_in, self._f_out = f_in, f_out
        self._blocks = _blocks(self.irreps_in, self.irreps_out, self.instructions)
        self._dim_in, self._dim_out = self.irreps_in.dim, self.irreps_out.dim
        self._dims_out = [block.dim for block in self.irreps_out]
        biased = [self.irreps_out.slices()[ins.i_out] for ins in self.instructions if ins.i_in == -1]
        columns = [torch.arange(block.start, block.stop) for block in biased]
        self.register_buffer("_bias_columns", torch.cat(columns) if columns else None, persistent=False)

    def _codegen_register(self, funcs: dict[str, Any]) -> None:
        """Leave e3nn's generated code out."""

    def forward(self, features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Apply the layer; shapes as said of the class.

        Raises:
            ShapeError: a tensor does not fit.
            MissingWeights: the module has no weights, or biases, of its own and was given none.
        """
        weight = self._given_or_own("weights", weight, self.weight, self.weight_numel)
        bias = self._given_or_own("biases", bias, self.bias, self.bias_numel)
        channels_in, channels_out = self._f_in or 1, self._f_out or 1
        dims_in = (self._dim_in,) if self._f_in is None else (channels_in, self._dim_in)
        dims_out = (self._dim_out,) if self._f_in is None else (channels_out, self._dim_out)
        leading = features.shape[: features.dim() - len(dims_in)]
        if features.shape[len(leading) :] != dims_in:
            raise ShapeError(f"the features must be [..., {', '.join(map(str, dims_in))}], got {list(features.shape)}")
        x = features.reshape(prod(leading), channels_in, self._dim_in)
        if self._blocks:
            out = self._mix(x, weight.reshape(-1, channels_in, channels_out, self.weight_numel))
        else:
            out = x.new_zeros(x.shape[0], channels_out, self._dim_out)
        if self._bias_columns is not None:
            bias = bias.reshape(1, channels_out, self.bias_numel).expand(x.shape[0], -1, -1)
            out = out.index_add(-1, self._bias_columns, bias)
        return out.reshape(*leading, *dims_out)

    def _mix(self, x: Tensor, weight: Tensor) -> Tensor:
        """[B, f_in, dim_in], weights [B or 1, f_in, f_out, weight_numel] -> [B, f_out, dim_out]"""
        batch, channels_in, _ = x.shape
        channels_out = weight.shape[2]
        blocks: list[Tensor | None] = [None] * len(self._dims_out)
        for start, mul_in, mul_out, dim, at_weight, i_out, factor in self._blocks:
            matrix = weight[..., at_weight : at_weight + mul_in * mul_out] * factor
            matrix = matrix.unflatten(-1, (mul_in, mul_out)).transpose(2, 3)
            matrix = matrix.reshape(-1, channels_in * mul_in, channels_out * mul_out)
            # one row of channels for each component, ready for the product
            rows = x[..., start : start + mul_in * dim].reshape(batch, channels_in * mul_in, dim).transpose(1, 2)
            y = rows @ (matrix[0] if self.shared_weights else matrix)
            y = y.transpose(1, 2).reshape(batch, channels_out, mul_out * dim)
            present = blocks[i_out]
            blocks[i_out] = y if present is None else present + y
        return torch.cat(
            [
                x.new_zeros(batch, channels_out, dim) if block is None else block
                for block, dim in zip(blocks, self._dims_out, strict=True)
            ],
            dim=-1,
        )

    def _given_or_own(self, what: str, given: Tensor | None, own: Tensor, size: int) -> Tensor:
        if given is None:
            if size > 0 and not self.internal_weights:
                raise MissingWeights(f"this layer has no internal {what}: call it with {what}")
            return own
        if given.shape[-1] != size:
            raise ShapeError(f"the last dimension of the {what} must be {size}, got {list(given.shape)}")
        return given

    def weight_views(self, weight: Tensor | None = None, yield_instruction: bool = False) -> Iterator[Any]:
        """Views on the weights, one for each instruction that is not a bias (where e3nn's own method fails)."""
        for index, instruction in enumerate(self.instructions):
            if instruction.i_in != -1:
                view = self.weight_view_for_instruction(index, weight)
                yield (index, instruction, view) if yield_instruction else view


def _check_instruction(instruction: tuple[int, int], irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> None:
    for name, index, irreps in zip(("irreps_in", "irreps_out"), instruction, (irreps_in, irreps_out), strict=True):
        if not 0 <= index < len(irreps):
            raise IrrepIndexError(f"instruction {instruction}: {index} is not a valid index for {name} = {irreps}")
    (_, ir_in), (_, ir_out) = irreps_in[instruction[0]], irreps_out[instruction[1]]
    require(ir_in == ir_out, f"instruction {instruction}: {ir_in} and {ir_out} do not have the same irrep")


def _blocks(irreps_in: o3.Irreps, irreps_out: o3.Irreps, instructions: Sequence[Any]) -> list[_Block]:
    """The instructions that are neither biases nor empty."""
    blocks, at_weight = [], 0
    for i_in, i_out, shape, factor in instructions:
        if i_in == -1 or 0 in shape:
            continue
        mul_in, mul_out = shape
        start, dim = irreps_in.slices()[i_in].start, irreps_in[i_in].ir.dim
        blocks.append(_Block(start, mul_in, mul_out, dim, at_weight, i_out, factor))
        at_weight += mul_in * mul_out
    return blocks
