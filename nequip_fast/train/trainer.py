"""The training loop: steps, validation with averaged weights, the best model, and resume points."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nequip_fast.devices import choose_device
from nequip_fast.errors import InputError, require
from nequip_fast.model import save_model
from nequip_fast.train.checkpoint import load_state, save_state
from nequip_fast.train.config import TrainConfig, seconds
from nequip_fast.train.dataset import Batch, Datasets
from nequip_fast.train.ema import EMA
from nequip_fast.train.history import History
from nequip_fast.train.interrupt import StopRequest
from nequip_fast.train.loss import Loss
from nequip_fast.train.metrics import ErrorSums
from nequip_fast.train.report import Reporter
from nequip_fast.train.schedule import Schedule


@dataclass
class Position:
    """Where training stands. Plain numbers, stored in the resume point."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches done in the epoch after them
    step: int = 0  # updates of the weights
    elapsed: float = 0.0  # seconds spent, over all starts
    best_epoch: int = 0
    finished: str = ""  # why the run is over; empty while it is not


class Trainer:
    """Trains ``model`` in place and keeps ``<output>/best.safetensors`` and ``<output>/last.safetensors``.

    Lightning Fabric places the model on the device and joins the processes (DDP); the loop is written out here
    because a bit-exact resume must know all of its state.

    Args:
        config: the whole run.
        model: a GraphModel, freshly built.
        datasets: graphs with labels.
        run_identity: what a resume point must agree with; stored in it.
        reporter: where progress is shown.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: Any,
        datasets: Datasets,
        run_identity: dict[str, Any],
        reporter: Reporter,
        fabric: Any,
    ):
        self.config = config.training
        self.seed = config.seed
        self.output = Path(config.output)
        self.datasets = datasets
        self.identity = run_identity
        self.reporter = reporter
        self.fabric = fabric
        self.model = model.to(fabric.device)
        self.ema = EMA(self.model, self.config.ema_decay)
        self.module = fabric.setup_module(self.model)
        optimizer = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[self.config.optimizer]
        self.optimizer = optimizer(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        self.loss = Loss(self.config.loss)
        self.schedule = Schedule(self.config)
        self.position = Position()
        self.history = History(self.output / "metrics.csv")
        self.train_sums = torch.zeros(2 + len(self.loss.terms), dtype=torch.float64, device=fabric.device)
        self._max_time = seconds(self.config.max_time)
        self._num_batches = datasets.train.num_batches(self.config.batch_size, fabric.world_size)
        if self._num_batches == 0:
            raise InputError("devices: more processes than training structures in a batch; use fewer devices")
        size = 4 * self.config.batch_size  # no second derivatives are kept, so more fit in the same memory
        self._validation = list(datasets.val.batches(size, fabric.global_rank, fabric.world_size))
        self._rate = self.config.learning_rate  # of the latest step
        self._started = self._saved_at = time.monotonic()

    @property
    def last(self) -> Path:
        """The resume point."""
        return self.output / "last.safetensors"

    @property
    def best(self) -> Path:
        """The averaged weights with the lowest validation loss."""
        return self.output / "best.safetensors"

    def resume(self) -> None:
        """Continue from the resume point."""
        tensors, plain = load_state(self.last, {"model": self.model, "ema": self.ema.model}, self.optimizer)
        self.position = Position(**plain["position"])
        self.schedule.restore(plain["schedule"])
        self.ema.updates = plain["ema_updates"]
        self.train_sums.copy_(tensors["train_sums"])
        self.history.keep_until(self.position.epoch)
        self._started = time.monotonic() - self.position.elapsed

    def fit(self) -> int:
        """Train until the budget is spent or nothing improves; returns 0, or the signal that stopped it before."""
        self._started = time.monotonic() - self.position.elapsed
        with StopRequest() as request, self.reporter.live(self._num_batches, self.position):
            if self.fabric.is_global_zero and not self.last.exists():
                self._save()  # from here on the folder says which run it holds
            while not self.position.finished:
                if reason := self._reason_to_stop():
                    self._finish(reason)
                    break
                interrupted = self._epoch(request)
                if interrupted:
                    self._save()
                    return interrupted
        return 0

    def _epoch(self, request: StopRequest) -> int:
        """The rest of one epoch and its validation; returns the signal that cut it short, or 0."""
        self.model.train()
        batches = self.datasets.train.epoch(
            self.seed,
            self.position.epoch,
            self.config.batch_size,
            self.position.batch,
            self.fabric.global_rank,
            self.fabric.world_size,
        )
        for batch in batches:
            self._step(batch.to(self.fabric.device))
            now = time.monotonic()
            self.position.elapsed = now - self._started
            self.reporter.step(self.position, self._used())
            if self._agree(bool(request.signal)):
                return request.signal or 2
            if self._agree(self._max_time is not None and self.position.elapsed >= self._max_time):
                break
            if now - self._saved_at >= self.config.checkpoint_interval:
                self._save()
        self._end_of_epoch()
        return 0

    def _step(self, batch: Batch) -> None:
        rate = self._rate = self.schedule.learning_rate(self.position.step, self._used())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, means = self.loss(self.module(batch.inputs), batch.reference, batch.counts)
        self.fabric.backward(loss * self.fabric.world_size)  # DDP averages gradients; the loss is a sum over ranks
        if self.config.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        structures = batch.counts["energy"]
        self.train_sums += structures * torch.cat([loss.detach().view(1), means, loss.new_ones(1)])
        self.position.step += 1
        self.position.batch += 1

    def _end_of_epoch(self) -> None:
        validation_loss, errors = self._validate()
        if not math.isfinite(validation_loss):
            raise InputError(
                f"training diverged in epoch {self.position.epoch + 1} (the validation loss is {validation_loss}); "
                "lower training.learning_rate or set training.gradient_clip, and start again with overwrite=true"
            )
        *train, weight = self._summed(self.train_sums)
        is_best = self.schedule.epoch_end(validation_loss)
        self.position.epoch += 1
        self.position.batch = 0
        self.train_sums.zero_()
        if is_best:
            self.position.best_epoch = self.position.epoch
        self.position.elapsed = time.monotonic() - self._started
        row = {
            "epoch": self.position.epoch,
            "step": self.position.step,
            "elapsed_s": round(self.position.elapsed, 3),
            "learning_rate": self._rate,
            "train_loss": train[0] / weight,
            **{f"train_{name}": value / weight for name, value in zip(self.loss.terms, train[1:], strict=True)},
            "val_loss": validation_loss,
            **{f"val_{name}": value for name, value in errors.items()},
        }
        if self.fabric.is_global_zero:
            if is_best:
                save_model(self.best, self.ema.model, extra={"epoch": self.position.epoch, "errors": errors})
            self.history.append(row)
            self._save()
        self.reporter.epoch(row, is_best, self.history)

    @torch.no_grad()
    def _validate(self) -> tuple[float, dict[str, float]]:
        """Loss and errors of the averaged weights over the validation set."""
        total = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        sums = ErrorSums(self.datasets.type_names, self.fabric.device)
        for batch in self._validation:
            batch = batch.to(self.fabric.device)
            with torch.enable_grad():  # forces are derivatives
                prediction = self.ema.model(batch.inputs)
            total += self.loss(prediction, batch.reference, batch.counts)[0].detach()
            sums.add(prediction, batch.reference)
        if self.fabric.world_size > 1:
            total = self.fabric.all_reduce(total, reduce_op="sum")
            sums.sums = self.fabric.all_reduce(sums.sums, reduce_op="sum")
        return float(total), sums.result()

    def _used(self) -> float:
        """Fraction of the budget (epochs or time) that is gone."""
        epochs = (self.position.epoch + self.position.batch / self._num_batches) / self.config.max_epochs
        time_share = self.position.elapsed / self._max_time if self._max_time is not None else 0.0
        return min(1.0, max(epochs, time_share))

    def _reason_to_stop(self) -> str:
        if self.position.epoch >= self.config.max_epochs:
            return f"{self.config.max_epochs} epochs done"
        if self._agree(self._max_time is not None and self.position.elapsed >= self._max_time):
            return f"max_time of {self._max_time:g} s reached"
        return self.schedule.stop_reason()

    def _finish(self, reason: str) -> None:
        self.position.finished = reason
        self._save()

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            save_state(
                self.last,
                {"model": self.model, "ema": self.ema.model},
                self.optimizer,
                {"train_sums": self.train_sums},
                {
                    "run": self.identity,
                    "threads": torch.get_num_threads(),
                    "position": asdict(self.position),
                    "schedule": self.schedule.state(),
                    "ema_updates": self.ema.updates,
                },
            )
        self._saved_at = time.monotonic()

    def _agree(self, mine: bool) -> bool:
        """All processes must take the same turn: true if any of them says so."""
        if self.fabric.world_size == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.fabric.device)
        return bool(self.fabric.all_reduce(flag, reduce_op="sum") > 0)

    def _summed(self, tensor: Tensor) -> list[float]:
        """Sums over all processes. Each rank holds its share of the loss but the full weight, hence the division."""
        if self.fabric.world_size > 1:
            tensor = self.fabric.all_reduce(tensor, reduce_op="sum")
            tensor[-1] /= self.fabric.world_size
        return [float(value) for value in tensor.cpu()]


def make_fabric(device: str, devices: int) -> Any:
    """Lightning Fabric for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    require("lightning", "train")
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator=choose_device(device).type, devices=devices, strategy="ddp" if devices > 1 else "auto")
    fabric.launch()
    return fabric
