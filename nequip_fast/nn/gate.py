"""Drop-in for ``e3nn.nn.Gate``."""

from __future__ import annotations

from e3nn import nn
from e3nn.util.jit import compile_mode

from nequip_fast.o3 import ElementwiseTensorProduct


@compile_mode("unsupported")
class Gate(nn.Gate):
    """``e3nn.nn.Gate``."""

    def __init__(self, irreps_scalars, act_scalars, irreps_gates, act_gates, irreps_gated) -> None:
        super().__init__(irreps_scalars, act_scalars, irreps_gates, act_gates, irreps_gated)
        self.mul = ElementwiseTensorProduct(self.irreps_gated, self.act_gates.irreps_out)
