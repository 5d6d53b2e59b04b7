"""Both contenders of the benchmark of accelerated models compute the same."""

import pytest
import torch

from bench.accelerate import train_calls

pytest.importorskip("nequip")


def test_a_training_step_has_the_same_forces():
    calls = train_calls("toluene-S")
    expected, found = calls["theirs"](), calls["accelerated"]()
    assert float(expected.abs().max()) > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
