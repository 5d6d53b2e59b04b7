"""Drop-in for ``e3nn.nn.Gate``."""

from __future__ import annotations

from typing import Any

from e3nn import nn
from e3nn.util.jit import compile_mode

from nequip_fast.o3 import ElementwiseTensorProduct


@compile_mode("unsupported")
class Gate(nn.Gate):
    """``e3nn.nn.Gate``: activated scalars, and irreps times activated scalars of their own (one product of ours).

    Arguments, attributes, ``repr`` and state dict are inherited. Shapes: [..., irreps_in.dim] -> [..., irreps_out.dim].
    """

    def __init__(
        self, irreps_scalars: Any, act_scalars: Any, irreps_gates: Any, act_gates: Any, irreps_gated: Any
    ) -> None:
        super().__init__(irreps_scalars, act_scalars, irreps_gates, act_gates, irreps_gated)
        self.mul = ElementwiseTensorProduct(self.irreps_gated, self.act_gates.irreps_out)
