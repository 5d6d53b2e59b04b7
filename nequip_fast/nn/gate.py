"""Drop-in for ``e3nn.nn.Gate``."""

from __future__ import annotations

from typing import Any

from e3nn import nn
from e3nn.util.jit import compile_mode
from torch import Tensor

from nequip_fast.adoption import Adoptable
from nequip_fast.errors import InputError
from nequip_fast.nn.activation_names import NO_KERNEL, named_activations
from nequip_fast.o3 import ElementwiseTensorProduct, Irreps
from nequip_fast.o3.errors import ShapeError
from nequip_fast.ops import GateProblem, gate


@compile_mode("unsupported")
class Gate(Adoptable, nn.Gate):
    """``e3nn.nn.Gate``: activated scalars, and irreps times activated scalars of their own.

    One pass where all functions have kernels (:data:`nequip_fast.ops.gate.ACTIVATIONS`); otherwise e3nn's own code with
    a product of ours. Arguments, attributes, ``repr`` and state dict are inherited.
    Shapes: [..., irreps_in.dim] -> [..., irreps_out.dim].
    """

    def __init__(
        self, irreps_scalars: Any, act_scalars: Any, irreps_gates: Any, act_gates: Any, irreps_gated: Any
    ) -> None:
        super().__init__(irreps_scalars, act_scalars, irreps_gates, act_gates, irreps_gated)
        self.mul = ElementwiseTensorProduct(self.irreps_gated, self.act_gates.irreps_out)
        self._derive(by_value=False)

    def _prepare(self) -> None:
        self._derive(by_value=True)
        if self.problem is None:
            raise InputError(NO_KERNEL)

    def _derive(self, by_value: bool) -> None:
        self._dim_in = self.irreps_in.dim
        scalars, gates = self.act_scalars, self.act_gates
        of_scalars, of_gates = named_activations(scalars.acts, by_value), named_activations(gates.acts, by_value)
        self.problem: GateProblem | None = None
        if of_scalars is not None and of_gates is not None:
            # as text, for irreps of another copy of e3nn
            irreps = [Irreps(str(part)) for part in (scalars.irreps_in, gates.irreps_in, self.irreps_gated)]
            self.problem = GateProblem.from_irreps(irreps[0], of_scalars, irreps[1], of_gates, irreps[2])

    def forward(self, features: Tensor) -> Tensor:
        """See the class for shapes.

        Raises:
            ShapeError: the features do not fit ``irreps_in``.
        """
        if features.shape[-1] != self._dim_in:
            raise ShapeError(f"the last dimension of the features must be {self._dim_in}, got {list(features.shape)}")
        return super().forward(features) if self.problem is None else gate(features, self.problem)
