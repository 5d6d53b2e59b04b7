"""The learning rate, and when there is no point in going on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from nequip_fast.train.config import TrainingConfig, seconds

_THRESHOLD = 1e-4  # relative improvement that counts, as in torch's ReduceLROnPlateau


@dataclass
class Schedule:
    """Learning rate from the step, the share of the budget that is used up, and the validation losses so far.

    ``plateau`` lowers the rate when validation stalls, as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` does;
    ``cosine`` lets it fall to zero at the end of the budget, which serves a fixed time best. The state is plain
    numbers, so that it resumes exactly.
    """

    config: TrainingConfig
    factor: float = 1.0
    best: float = math.inf
    stalled_epochs: int = 0  # since the last improvement or the last fall of the rate
    epochs_since_best: int = 0

    @property
    def kind(self) -> str:
        """``plateau`` or ``cosine``, with ``auto`` resolved."""
        if self.config.schedule != "auto":
            return self.config.schedule
        return "cosine" if seconds(self.config.max_time) is not None else "plateau"

    def learning_rate(self, step: int, used: float) -> float:
        """Rate of the ``step``-th update (from 0) when the fraction ``used`` of epochs or time is gone."""
        rate = self.config.learning_rate * self.factor
        if step < self.config.warmup_steps:
            rate *= (step + 1) / self.config.warmup_steps
        if self.kind == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, used)))
        return rate

    def epoch_end(self, validation_loss: float) -> bool:
        """Take note of a validation; true if it is the best so far."""
        is_best = validation_loss < self.best
        if validation_loss < self.best * (1 - _THRESHOLD):
            self.stalled_epochs = self.epochs_since_best = 0
        else:
            self.stalled_epochs += 1
            self.epochs_since_best += 1
        if is_best:
            self.best = validation_loss
        if self.kind == "plateau" and self.stalled_epochs > self.config.lr_patience:
            self.factor *= self.config.lr_factor
            self.stalled_epochs = 0
        return is_best

    def stop_reason(self) -> str:
        """Why to stop now; empty to go on."""
        patience = self.config.early_stopping_patience
        if patience is not None and self.epochs_since_best >= patience:
            return f"no better validation loss in {patience} epochs"
        if self.kind == "plateau" and self.config.learning_rate * self.factor < self.config.min_learning_rate:
            return f"learning rate below {self.config.min_learning_rate:g}"
        return ""

    def state(self) -> dict[str, Any]:
        """JSON-able; what :meth:`restore` takes."""
        return {name: value for name, value in asdict(self).items() if name != "config"}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        for name, value in state.items():
            setattr(self, name, value)
