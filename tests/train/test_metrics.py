"""Error statistics against direct formulas and nequip's metrics."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from nequip_fast.train.metrics import ErrorSums, trivial_prediction

Pairs = Callable[..., tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]


@pytest.mark.usefixtures("float64_default")
def test_equals_nequip_over_batches(two_structures: Pairs) -> None:
    from nequip.train import EnergyForceStressMetrics

    names = ["per_atom_energy_mae", "per_atom_energy_rmse", "forces_mae", "forces_rmse", "stress_mae", "stress_rmse"]
    theirs = EnergyForceStressMetrics(coeffs=dict.fromkeys(names, 1.0))
    sums = ErrorSums(["H", "O"])
    for seed in range(3):
        prediction, reference = two_structures(seed)
        sums.add(prediction, reference)
        theirs(prediction, reference)
    expected = theirs.compute()
    ours = sums.result()
    for name in names:
        assert ours[name.removeprefix("per_atom_")] == pytest.approx(float(expected[name]), rel=1e-12), name


def test_forces_per_element(two_structures: Pairs) -> None:
    prediction, reference = two_structures()
    sums = ErrorSums(["H", "O", "Xe"])
    sums.add(prediction, reference)
    errors = sums.result()
    difference = prediction["forces"] - reference["forces"]
    oxygen = difference[reference["atom_types"] == 1]
    assert errors["forces_O_mae"] == pytest.approx(float(oxygen.abs().mean()))
    assert errors["forces_O_rmse"] == pytest.approx(float(oxygen.square().mean().sqrt()))
    assert errors["forces_mae"] == pytest.approx(float(difference.abs().mean()))
    assert "forces_Xe_mae" not in errors


def test_structures_without_stress_are_left_out(two_structures: Pairs) -> None:
    prediction, reference = two_structures()
    reference["stress"][0] = math.nan
    sums = ErrorSums(["H", "O"])
    sums.add(prediction, reference)
    expected = (prediction["stress"] - reference["stress"])[1].abs().mean()
    assert sums.result()["stress_mae"] == pytest.approx(float(expected))
    del reference["stress"]
    without = ErrorSums(["H", "O"])
    without.add(prediction, reference)
    assert "stress_mae" not in without.result()


def test_trivial_predictor_recovers_element_energies() -> None:
    batch = torch.tensor([0, 0, 1, 1, 1, 2])
    types = torch.tensor([0, 1, 0, 0, 1, 1])
    energies = torch.tensor([-13.6, -430.0], dtype=torch.float64)
    total = torch.zeros(3, dtype=torch.float64).index_add(0, batch, energies[types]).view(3, 1)
    reference = {"total_energy": total, "batch": batch, "atom_types": types, "forces": torch.ones(6, 3).double()}
    prediction = trivial_prediction(reference, 2)
    torch.testing.assert_close(prediction["total_energy"], total, rtol=1e-12, atol=1e-9)
    assert prediction["forces"].abs().max() == 0


def test_trivial_predictor_of_one_composition_is_the_mean() -> None:
    total = torch.tensor([[-10.0], [-12.0]], dtype=torch.float64)
    reference = {"total_energy": total, "batch": torch.tensor([0, 0, 1, 1]), "atom_types": torch.tensor([0, 1, 0, 1])}
    assert trivial_prediction(reference, 3)["total_energy"].view(-1).tolist() == pytest.approx([-11.0, -11.0])
