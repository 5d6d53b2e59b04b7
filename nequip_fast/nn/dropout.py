"""Drop-in for ``e3nn.nn.Dropout``."""

from __future__ import annotations

from typing import Any

import torch
from e3nn import nn
from e3nn.util.jit import compile_mode
from torch import Tensor


@compile_mode("unsupported")
class Dropout(nn.Dropout):
    """``e3nn.nn.Dropout``: drops whole copies of irreps; the same seed drops the same ones.

    Inherited but for what ``torch.compile`` cannot follow in e3nn's: it walks over irreps in the forward pass.

    Shapes: [batch, ..., irreps.dim] -> the same; a copy is dropped for all of the dimensions between.
    """

    def __init__(self, irreps: Any, p: float) -> None:
        super().__init__(irreps, p)
        self._blocks = [(block.mul, block.ir.dim) for block in self.irreps]

    def forward(self, x: Tensor) -> Tensor:
        """See the class for shapes."""
        if not self.training:
            return x
        keep = min(max(1.0 - self.p, 0.0), 1.0)
        masks = []
        for mul, dim in self._blocks:  # one draw a block, as e3nn does, for the same random numbers
            mask = x.new_empty(x.shape[0], mul)
            mask = mask.bernoulli_(keep).div_(keep) if 0.0 < keep < 1.0 else mask.fill_(keep)
            masks.append(mask.repeat_interleave(dim, dim=1))
        mask = torch.cat(masks, dim=1)
        return x * mask.reshape(x.shape[0], *[1] * (x.dim() - 2), mask.shape[1])
