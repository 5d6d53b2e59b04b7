"""Drop-in for ``e3nn.o3.Linear``: a tensor product with the number one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod, sqrt
from typing import Any

import e3nn
import torch
from e3nn import o3
from e3nn.util.jit import compile_mode
from torch import Tensor

from nequip_fast.adoption import Adoptable
from nequip_fast.errors import InputError
from nequip_fast.o3.errors import IrrepIndexError, MissingWeights, ShapeError, require
from nequip_fast.o3.instructions import check_choice
from nequip_fast.ops import ProductPath, ProductProblem, tensor_product


@compile_mode("unsupported")
class Linear(Adoptable, o3.Linear):
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
        require((f_in is None) == (f_out is None), f"f_in and f_out come together, got {f_in} and {f_out}")
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
        self._derive(f_in, f_out)

    def _prepare(self) -> None:
        if self.weight_numel and not self.internal_weights:
            raise InputError("its weights come from outside: whether it has f_in and f_out channels cannot be seen")
        channels = self.weight.shape[:-1] if self.weight_numel else ()
        self._derive(*(channels or (None, None)))

    def _derive(self, f_in: int | None, f_out: int | None) -> None:
        """What the code here needs and e3nn's does not."""
        self._channels_in, self._channels_out = (() if f is None else (f,) for f in (f_in, f_out))
        self._dim_in, self._dim_out = self.irreps_in.dim, self.irreps_out.dim
        self.problem = _problem(self.irreps_in, self.irreps_out, self.instructions, f_in or 1, f_out or 1)
        biased = [self.irreps_out.slices()[ins.i_out] for ins in self.instructions if ins.i_in == -1]
        self._register_order("_bias_columns", [torch.arange(block.start, block.stop) for block in biased])
        if f_in is not None and f_out is not None:
            # f_in layers side by side are one layer of f_in times the channels, once these lie together
            shapes = [ins.path_shape for ins in self.instructions if ins.i_in != -1]
            self._register_order("_order_in", _channels_together(self.irreps_in, f_in))
            self._register_order("_order_weight", _matrices_together(shapes, f_in, f_out))
            self._register_order("_order_out", [torch.cat(_channels_together(self.irreps_out, f_out)).argsort()])

    def _register_order(self, name: str, parts: Sequence[Tensor]) -> None:
        order = torch.cat([torch.empty(0, dtype=torch.long), *parts]).to(self.weight.device)
        self.register_buffer(name, order, persistent=False)

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
        dims_in = (*self._channels_in, self._dim_in)
        leading = features.shape[: features.dim() - len(dims_in)]
        if features.shape[len(leading) :] != dims_in:
            raise ShapeError(f"the features must be [..., {', '.join(map(str, dims_in))}], got {list(features.shape)}")
        x = features.reshape(prod(leading), self.problem.dim_x)
        weight = weight.reshape(-1, self.problem.dim_w) if self.problem.dim_w else x.new_empty(1, 0)
        if self._channels_in:
            x, weight = x.index_select(1, self._order_in), weight.index_select(1, self._order_weight)
        out = tensor_product(x, x.new_ones(1, 1), weight, self.problem)
        if self._channels_in:
            out = out.index_select(1, self._order_out)
        out = out.reshape(*leading, *self._channels_out, self._dim_out)
        if self.bias_numel:
            bias = bias.reshape(*self._channels_out, self.bias_numel)
            out = out + bias.new_zeros(*self._channels_out, self._dim_out).index_copy(-1, self._bias_columns, bias)
        return out

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


def _problem(
    irreps_in: o3.Irreps, irreps_out: o3.Irreps, instructions: Sequence[Any], f_in: int, f_out: int
) -> ProductProblem:
    """The layer as a product "uvw" with one scalar; its multiplicities times ``f_in`` and ``f_out``.

    The factor √(2l + 1) takes the one in the Clebsch-Gordan coefficients of a product with a scalar away.
    """
    starts_in, starts_out = ([block.start for block in irreps.slices()] for irreps in (irreps_in, irreps_out))
    paths, dim_w = [], 0
    for i_in, i_out, shape, factor in instructions:
        if i_in == -1 or 0 in shape:  # a bias, or nothing
            continue
        (mul_in, ir), (mul_out, _) = irreps_in[i_in], irreps_out[i_out]
        muls, starts = (
            (mul_in * f_in, 1, mul_out * f_out),
            (starts_in[i_in] * f_in, 0, dim_w, starts_out[i_out] * f_out),
        )
        paths.append(ProductPath("uvw", ir.l, 0, ir.l, *muls, *starts, factor * sqrt(ir.dim)))
        dim_w += prod(muls)
    return ProductProblem(paths, irreps_in.dim * f_in, 1, dim_w, irreps_out.dim * f_out)


def _channels_together(irreps: o3.Irreps, f: int) -> list[Tensor]:
    """For each irrep, where its ``f`` times mul channels lie in [f, irreps.dim]."""
    columns = torch.arange(f * irreps.dim).view(f, irreps.dim)
    return [columns[:, block].flatten() for block in irreps.slices()]


def _matrices_together(shapes: Sequence[tuple[int, int]], f_in: int, f_out: int) -> list[Tensor]:
    """For each of the matrices, where its [f_in · mul_in, f_out · mul_out] numbers lie in [f_in, f_out, Σ sizes]."""
    places = torch.arange(f_in * f_out * sum(map(prod, shapes))).view(f_in, f_out, -1)
    blocks = places.split([prod(shape) for shape in shapes], dim=2)
    return [
        block.view(f_in, f_out, *shape).transpose(1, 2).flatten() for block, shape in zip(blocks, shapes, strict=True)
    ]
