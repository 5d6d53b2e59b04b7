"""The loss against numbers worked out by hand and against nequip's MetricsManager."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from nequip_fast.train.config import LossConfig
from nequip_fast.train.loss import Loss

Pairs = Callable[..., tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]


def test_hand_calculation() -> None:
    prediction = {"total_energy": torch.tensor([[2.0], [6.0]]), "forces": torch.tensor([[1.0, 0, 0], [0, 2.0, 0]])}
    reference = {
        "total_energy": torch.tensor([[1.0], [3.0]]),
        "forces": torch.zeros(2, 3),
        "num_atoms": torch.tensor([1, 1]),
    }
    loss, means = Loss(LossConfig(energy=3.0, forces=1.0))(prediction, reference)
    assert means.tolist() == pytest.approx([(1 + 9) / 2, (1 + 4) / 6])
    assert float(loss) == pytest.approx(0.75 * 5 + 0.25 * 5 / 6)


def test_huber_by_hand() -> None:
    prediction = {"forces": torch.tensor([[0.5, 3.0, 0.0]]), "total_energy": torch.zeros(1, 1)}
    reference = {"forces": torch.zeros(1, 3), "total_energy": torch.zeros(1, 1), "num_atoms": torch.tensor([1])}
    loss, _ = Loss(LossConfig(energy=0.0, forces=1.0, kind="huber", huber_delta=1.0))(prediction, reference)
    assert float(loss) == pytest.approx((0.5 * 0.25 + (3.0 - 0.5)) / 3)


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (5.0, 1.0, 0.5)])
def test_equals_nequip(two_structures: Pairs, weights: tuple[float, float, float]) -> None:
    from nequip.train import EnergyForceStressLoss

    prediction, reference = two_structures()
    names = ("total_energy", "forces", "stress")
    theirs = EnergyForceStressLoss(coeffs=dict(zip(names, weights, strict=True)))(prediction, reference)
    loss, means = Loss(LossConfig(energy=weights[0], forces=weights[1], stress=weights[2]))(prediction, reference)
    assert float(loss) == pytest.approx(float(theirs["weighted_sum"]), rel=1e-14)
    expected = [float(theirs[name]) for name in ("per_atom_energy_mse", "forces_mse", "stress_mse")]
    assert means.tolist() == pytest.approx(expected, rel=1e-14)


def test_unknown_stress_counts_for_nothing(two_structures: Pairs) -> None:
    prediction, reference = two_structures()
    prediction["stress"].requires_grad_(True)
    reference["stress"][0] = math.nan
    loss, _ = Loss(LossConfig(energy=0.0, forces=0.0, stress=1.0))(prediction, reference)
    assert loss.item() == pytest.approx(float((prediction["stress"].detach() - reference["stress"])[1].square().mean()))
    loss.backward()
    gradient = prediction["stress"].grad
    assert gradient is not None
    assert torch.equal(gradient[0], torch.zeros(3, 3).double())
    assert gradient[1].abs().min() > 0


def test_shares_of_a_divided_batch_add_up(two_structures: Pairs) -> None:
    prediction, reference = two_structures()
    criterion = Loss(LossConfig(energy=2.0, forces=1.0, stress=1.0))
    whole, _ = criterion(prediction, reference)
    counts = {"energy": 2, "forces": 15, "stress": 18}
    atoms = [slice(0, 2), slice(2, 5)]
    parts = []
    for structure in range(2):
        one = [
            {
                "total_energy": source["total_energy"][structure : structure + 1],
                "num_atoms": source["num_atoms"][structure : structure + 1],
                "forces": source["forces"][atoms[structure]],
                "stress": source["stress"][structure : structure + 1],
            }
            for source in (prediction, reference)
        ]
        parts.append(float(criterion(one[0], one[1], counts)[0]))
    assert sum(parts) == pytest.approx(float(whole), rel=1e-14)
