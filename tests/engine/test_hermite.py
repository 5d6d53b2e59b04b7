"""Interpolation in tables of weights as the convolution takes it, against the engine's own."""

from __future__ import annotations

import pytest
import torch

from nequip_fast.engine.hermite import interval_rows, interval_table
from nequip_fast.engine.program import RadialNetwork, RadialTable
from nequip_fast.engine.radial import hermite

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.usefixtures("each_kernel")


@pytest.mark.parametrize("count", [2, 3, 64, 65, 129])
def test_equals_the_table(count):
    """Values and slopes between knots, at them and at both ends; intervals narrow as rounding are passed over."""
    knots = torch.rand(count, dtype=torch.float64).cumsum(0)
    knots = (knots - knots[0]) / (knots[-1] - knots[0])
    if count > 64:
        knots[count // 2] = knots[count // 2 + 1].nextafter(torch.tensor(0.0, dtype=torch.float64))
    values = torch.randn(count, 3, 7, dtype=torch.float64)
    values[:, 2] *= 0.1
    table = interval_table(RadialTable(knots, values, RadialNetwork([])))
    middle = knots[:-1] + torch.rand(count - 1, dtype=torch.float64) * knots.diff()
    x = torch.cat([middle, knots, torch.rand(300, dtype=torch.float64)]).requires_grad_()
    expected = hermite(knots, values, x)
    first, coefficients, slopes = (
        t.cpu() for t in interval_rows(x.detach().to(DEVICE), knots.to(DEVICE), torch.float64)
    )
    found, rising = (sum(part[:, k, None] * table[first + k] for k in range(6)) for part in (coefficients, slopes))
    wide = knots.diff()[first // 6] > 1e-12
    torch.testing.assert_close(found[wide], expected[wide], rtol=1e-11, atol=1e-11)
    cotangent = torch.randn_like(expected) * wide[:, None]
    (slope,) = torch.autograd.grad(expected, x, cotangent)
    torch.testing.assert_close((rising * cotangent).sum(1), slope, rtol=1e-8, atol=1e-6)


def test_single_precision_and_no_edges():
    knots = torch.linspace(0, 1, 17, dtype=torch.float64, device=DEVICE)
    x = torch.rand(100, dtype=torch.float64, device=DEVICE)
    (first, *rounded), (again, *exact) = (interval_rows(x, knots, dtype) for dtype in (torch.float32, torch.float64))
    assert torch.equal(first, again)
    for ours, precise in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, precise.float())
    assert interval_rows(x[:0], knots, torch.float32)[1].shape == (0, 6)
