"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class EMA:
    """A copy of the model whose weights follow: ``w_ema += (1 - d)(w - w_ema)`` after every step.

    ``d = min(decay, (1 + n) / (10 + n))`` after n updates, as nequip does, so that the first weights are soon
    forgotten. The copy is a complete model, so it can be evaluated while training goes on, and no weights are ever
    exchanged.

    Args:
        model: in evaluation mode or not; the copy is always in evaluation mode.
        decay: in [0, 1); 0 makes the copy equal to the model.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model: Any = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        groups: dict[torch.dtype, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            own, source = groups.setdefault(theirs.dtype, ([], []))
            own.append(mine)
            source.append(theirs)
        self._groups = list(groups.values())  # one fused call needs one dtype

    @torch.no_grad()
    def update(self) -> None:
        """Follow the model by one step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for own, source in self._groups:
            torch._foreach_lerp_(own, source, 1 - decay)
        self.updates += 1
