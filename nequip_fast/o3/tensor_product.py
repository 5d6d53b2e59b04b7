"""Drop-in for ``e3nn.o3.TensorProduct`` on the operator :func:`nequip_fast.ops.tensor_product`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from e3nn import o3
from e3nn.util.jit import compile_mode
from torch import Tensor

from nequip_fast.adoption import Adoptable
from nequip_fast.o3.errors import MissingWeights, ShapeError, require
from nequip_fast.o3.generated_constants import GENERATED, generated_constants
from nequip_fast.o3.instructions import check_choice, check_instruction, product_problem
from nequip_fast.ops import tensor_product


@compile_mode("unsupported")  # TorchScript: told in a sentence, not by a parser error
class TensorProduct(Adoptable, o3.TensorProduct):
    """``e3nn.o3.TensorProduct`` as one operator, all paths in one pass; every mode and option of e3nn.

    Arguments, normalisation, initial weights, attributes, ``repr`` and ``visualize`` are inherited; what is replaced
    is the code that e3nn generates (``_specialized_code`` and ``_optimize_einsums`` are kept and change nothing).

    Shapes: x [..., irreps_in1.dim], y [..., irreps_in2.dim] -> [..., irreps_out.dim]; the leading dimensions
    broadcast. Weights are [weight_numel] if shared, else [..., weight_numel], or a list with one tensor of
    ``path_shape`` for each instruction that has weights.

    Raises:
        InstructionError: an instruction that does not couple, or arguments that contradict each other.
    """

    def __init__(
        self,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        instructions: Sequence[tuple],
        in1_var: Sequence[float] | Tensor | None = None,
        in2_var: Sequence[float] | Tensor | None = None,
        out_var: Sequence[float] | Tensor | None = None,
        irrep_normalization: str | None = None,
        path_normalization: str | None = None,
        internal_weights: bool | None = None,
        shared_weights: bool | None = None,
        compile_left_right: bool = True,
        compile_right: bool = False,
        normalization: str | None = None,
        _specialized_code: bool | None = None,
        _optimize_einsums: bool | None = None,
    ) -> None:
        irreps = o3.Irreps(irreps_in1), o3.Irreps(irreps_in2), o3.Irreps(irreps_out)
        for instruction in instructions:
            check_instruction(instruction, *irreps)
        check_choice("irrep_normalization", normalization or irrep_normalization, ("component", "norm", "none"))
        check_choice("path_normalization", path_normalization, ("element", "path", "none"))
        for name, variances, of in zip(("in1", "in2", "out"), (in1_var, in2_var, out_var), irreps, strict=True):
            require(
                variances is None or len(variances) == len(of),
                f"{name}_var needs {len(of)} values, one for each irrep of {of}",
            )
        require(
            shared_weights is not False or not internal_weights,
            "internal_weights and shared_weights=False exclude each other: weights of a row come from outside",
        )
        super().__init__(
            *irreps,
            instructions,
            in1_var,
            in2_var,
            out_var,
            irrep_normalization,
            path_normalization,
            internal_weights,
            shared_weights,
            compile_left_right=False,  # there is no code to generate
            compile_right=False,
            normalization=normalization,
            _specialized_code=_specialized_code,
            _optimize_einsums=_optimize_einsums,
        )
        self._did_compile_left_right, self._did_compile_right = compile_left_right, compile_right
        self._derive()

    def _prepare(self) -> None:
        self._did_compile_left_right = True  # e3nn does not tell
        self._derive()

    def _derive(self) -> None:
        self.problem = product_problem(self.irreps_in1, self.irreps_in2, self.irreps_out, self.instructions)

    def _codegen_register(self, funcs: dict[str, Any]) -> None:
        """Leave out the placeholders that e3nn's constructor makes where it generates nothing."""

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | list[Tensor] | None = None) -> Tensor:
        """:math:`w x ⊗ y`; shapes as said of the class.

        Raises:
            ShapeError: a tensor does not fit, or the module was made with ``compile_left_right=False``.
            MissingWeights: the module has no weights of its own and was given none.
        """
        if not self._did_compile_left_right:
            raise ShapeError("this product was made with compile_left_right=False; make it with True to call it")
        self._check_last_dimension("x", x, self.problem.dim_x)
        self._check_last_dimension("y", y, self.problem.dim_y)
        return self._product(x, y, self._get_weights(weight))

    def right(self, y: Tensor, weight: Tensor | list[Tensor] | None = None) -> Tensor:
        """The matrix of ``x -> forward(x, y, weight)``, [..., irreps_in1.dim, irreps_out.dim].

        Every row of y meets each unit vector: as many products as x has components.

        Raises:
            ShapeError, MissingWeights: as :meth:`forward`; also a module made without ``compile_right=True``.
        """
        if not self._did_compile_right:
            raise ShapeError("`right` needs a product made with compile_right=True")
        self._check_last_dimension("y", y, self.problem.dim_y)
        weight = self._get_weights(weight)
        units = torch.eye(self.problem.dim_x, dtype=y.dtype, device=y.device)
        return self._product(units, y.unsqueeze(-2), weight if self.shared_weights else weight.unsqueeze(-2))

    def _product(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        if weight.shape[-1] == 0:  # the empty buffer of a product without weights has no dtype to speak of
            weight = y.new_empty(0)
        leading = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1], weight.shape[:-1])
        x, y, weight = (_rows(operand, leading) for operand in (x, y, weight))
        return tensor_product(x, y, weight, self.problem).reshape(*leading, self.problem.dim_out)

    def _get_weights(self, weight: Tensor | list[Tensor] | None) -> Tensor:
        """The weights to use, checked: the module's own, or those given, a list joined to one tensor."""
        if weight is None:
            if self.weight_numel > 0 and not self.internal_weights:
                raise MissingWeights("this product has no internal weights: call it with weights")
            return self.weight
        given: Tensor = self._prep_weights_python(weight)  # joins a list
        self._check_last_dimension("weight", given, self.weight_numel)
        if self.shared_weights and given.dim() != 1:
            raise ShapeError(f"shared weights must be [{self.weight_numel}], got {list(given.shape)}")
        if not self.shared_weights and given.dim() == 1:
            raise ShapeError(f"weights that are not shared must be [..., {self.weight_numel}], got no batch dimension")
        return given

    def weight_view_for_instruction(self, instruction: int, weight: Tensor | None = None) -> Tensor:
        """A view on the weights of one instruction, [..., *path_shape].

        e3nn counts the instructions without weights as well when it looks for the place, and so misses it behind one.

        Raises:
            ValueError: the instruction has no weights.
        """
        for index, _, view in self.weight_views(weight, yield_instruction=True):
            if index == instruction % len(self.instructions):
                return view
        raise ValueError(f"Instruction {instruction} has no weights.")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if "_compiled_main_left_right" in self._modules:  # adopted: e3nn's code is still there and saves its constants
            return
        destination.update({prefix + name: value for name, value in generated_constants(self)})

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        constants = tuple(prefix + name for name in GENERATED)
        unexpected_keys[:] = [key for key in unexpected_keys if not key.startswith(constants)]

    @staticmethod
    def _check_last_dimension(name: str, tensor: Tensor, dim: int) -> None:
        if tensor.shape[-1] != dim:
            raise ShapeError(f"the last dimension of {name} must be {dim}, got {list(tensor.shape)}")


def _rows(operand: Tensor, leading: torch.Size) -> Tensor:
    """[..., d] -> [B, d] with the leading dimensions broadcast, or [1, d] where all B rows are the same."""
    count, dim = prod(leading), operand.shape[-1]
    if count != 0 and prod(operand.shape[:-1]) == 1:
        return operand.reshape(1, dim)
    return operand.expand(*leading, dim).reshape(count, dim)
