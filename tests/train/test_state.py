"""Averaged weights, schedule, history and resume point, each on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nequip_fast.errors import InputError
from nequip_fast.train.checkpoint import load_state, read_plain, save_state
from nequip_fast.train.config import TrainingConfig
from nequip_fast.train.ema import EMA
from nequip_fast.train.history import History, read_history
from nequip_fast.train.schedule import Schedule


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(2, 1, dtype=torch.float64)])


def random_update(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def test_ema_equals_nequip() -> None:
    from nequip.train.ema import EMAWeights

    model = small_model()
    ours, theirs = EMA(model, 0.9), EMAWeights(model, 0.9)
    theirs.update_parameters(model)  # nequip's first call copies
    theirs.num_updates = 0
    for _ in range(40):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        ours.update()
        theirs.num_updates = max(theirs.num_updates, 1)
        _reference_update(theirs, model, ours.updates - 1)
    for mine, other in zip(ours.model.parameters(), theirs.ema_weights, strict=True):
        torch.testing.assert_close(mine, other)


def _reference_update(theirs: Any, model: torch.nn.Module, updates: int) -> None:
    """nequip's update with the number of updates that ours has had: it counts its initial copy as the first."""
    if updates == 0:  # nequip never averages with zero updates; its decay there would be 1/10
        for average, parameter in zip(theirs.ema_weights, model.parameters(), strict=True):
            average.lerp_(parameter.detach(), 1 - min(0.9, 1 / 10))
        return
    theirs.num_updates = updates
    theirs.update_parameters(model)


def test_ema_without_decay_is_the_model() -> None:
    model = small_model()
    ema = EMA(model, 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    ema.update()
    for mine, other in zip(ema.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_plateau_equals_torch() -> None:
    config = TrainingConfig(learning_rate=0.1, schedule="plateau", lr_patience=2, lr_factor=0.3)
    schedule = Schedule(config)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, factor=0.3)
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.89999, 0.5, *[0.6] * 9, 0.4, *[0.7] * 7]
    for loss in losses:
        schedule.epoch_end(loss)
        theirs.step(loss)
        assert schedule.learning_rate(100, 0.5) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert schedule.factor < 0.1  # the comparison saw several falls


def test_cosine_falls_to_zero_and_warms_up() -> None:
    schedule = Schedule(TrainingConfig(learning_rate=0.1, max_time="2m", warmup_steps=10))
    assert schedule.kind == "cosine"
    assert schedule.learning_rate(0, 0.0) == pytest.approx(0.01)
    assert schedule.learning_rate(10, 0.5) == pytest.approx(0.05)
    assert schedule.learning_rate(10, 1.0) == pytest.approx(0.0, abs=1e-12)


def test_reasons_to_stop() -> None:
    patient = Schedule(TrainingConfig(early_stopping_patience=3, schedule="cosine"))
    for loss in (1.0, 2.0, 2.0):
        patient.epoch_end(loss)
        assert patient.stop_reason() == ""
    patient.epoch_end(2.0)
    assert patient.stop_reason() == "no better validation loss in 3 epochs"
    falling = Schedule(TrainingConfig(learning_rate=0.1, min_learning_rate=0.06, lr_patience=0))
    falling.epoch_end(1.0)
    falling.epoch_end(1.0)
    assert falling.stop_reason() == "learning rate below 0.06"


def test_resume_point_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    for _ in range(3):
        random_update(model, optimizer)
    save_state(path, {"model": model}, optimizer, {"sums": torch.tensor([1.0, 2.0])}, {"step": 3, "best": 0.1 + 0.2})
    random_update(model, optimizer)
    expected = [parameter.detach().clone() for parameter in model.parameters()]

    fresh = small_model()
    other = torch.optim.AdamW(fresh.parameters(), lr=0.5, fused=True)
    torch.randn(100)  # the random generator moves on and must be put back
    tensors, plain = load_state(path, {"model": fresh}, other)
    random_update(fresh, other)
    assert tensors["sums"].tolist() == [1.0, 2.0]
    assert plain == {"step": 3, "best": 0.1 + 0.2} == read_plain(path)
    for one, two in zip(expected, fresh.parameters(), strict=True):
        assert torch.equal(one, two)


def test_damaged_resume_point(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(InputError, match=r"last\.safetensors: not a readable safetensors file"):
        read_plain(path)


def test_history_drops_what_will_be_done_again(tmp_path: Path) -> None:
    history = History(tmp_path / "metrics.csv")
    for epoch in range(1, 5):
        history.append({"epoch": epoch, "loss": 1 / epoch})
    with open(history.path, "a") as file:
        file.write("5,0.")  # a line cut short by a full disk
    again = History(history.path)
    again.keep_until(2)
    again.append({"epoch": 3, "loss": 0.25})
    assert [row["epoch"] for row in read_history(history.path)] == [1, 2, 3]
    assert [row["loss"] for row in again.rows] == [1.0, 0.5, 0.25]
