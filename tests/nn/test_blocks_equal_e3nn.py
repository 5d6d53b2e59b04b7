"""Linear, SelfConnection, Gate and NormActivation against e3nn, to second order, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import e3nn.nn
import pytest
import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.nn.model_gate import Gate, NormActivation

TOLERANCE = 1e-12
ATOMS = 6
SILU, TANH = torch.nn.functional.silu, torch.tanh


@pytest.fixture(autouse=True)
def _float64_oracle():
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(default)


def _features(irreps: str | o3.Irreps, atoms: int = ATOMS) -> Tensor:
    return torch.randn(atoms, o3.Irreps(irreps).dim, requires_grad=True)


def _derivatives(function: Callable[[], Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Value, first derivatives, and derivatives of the norm of the first derivatives."""
    y = function()
    weights = torch.cos(torch.arange(y.numel())).view_as(y)
    first = torch.autograd.grad((y * weights + y.square()).sum(), inputs, create_graph=True)
    norm = sum(g.square().sum() for g in first)
    assert isinstance(norm, Tensor)
    second = torch.autograd.grad(norm, inputs)
    return [y, *first, *second]


def _assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape
        assert float((a - b).detach().abs().max()) <= TOLERANCE * max(float(b.detach().abs().max()), 1.0), k


@pytest.mark.parametrize(
    ("scalars", "gated", "gate_parity"),
    [
        ("8x0e", "", 1),
        ("7x0e", "13x1o + 5x2e", 1),
        ("6x0e + 4x0o", "3x1o + 2x1e + 5x2e + 2x2o", 1),
        ("4x0o", "3x1o + 2x2e", 1),
        ("", "3x1o", 1),
        ("4x0o", "3x1o + 2x2e", -1),
        ("2x0e + 3x0e + 1x0o", "2x1o + 1x1o + 3x2e", 1),
    ],
)
def test_gate(scalars: str, gated: str, gate_parity: int) -> None:
    acts, names = {1: SILU, -1: TANH}, {1: "silu", -1: "tanh"}
    irreps_scalars, irreps_gated = o3.Irreps(scalars), o3.Irreps(gated)
    gates = o3.Irreps([(mul, (0, gate_parity)) for mul, _ in irreps_gated])
    theirs = e3nn.nn.Gate(
        irreps_scalars, [acts[ir.p] for _, ir in irreps_scalars], gates, [acts[ir.p] for _, ir in gates], irreps_gated
    )
    ours = Gate(irreps_scalars, irreps_gated, gate_parity, names, names)
    assert ours.irreps_in == theirs.irreps_in
    assert ours.irreps_out == theirs.irreps_out
    x = _features(ours.irreps_in)
    _assert_same(_derivatives(lambda: ours(x), [x]), _derivatives(lambda: theirs(x), [x]))


@pytest.mark.parametrize("irreps", ["8x0e", "7x0e + 13x1o + 5x2e", "4x0o + 3x1e"])
def test_norm_activation(irreps: str) -> None:
    theirs = e3nn.nn.NormActivation(irreps, SILU, normalize=True, epsilon=1e-8, bias=False)
    ours = NormActivation(o3.Irreps(irreps), "silu")
    x = _features(irreps)
    _assert_same(_derivatives(lambda: ours(x), [x]), _derivatives(lambda: theirs(x), [x]))
    with torch.no_grad():
        zero = torch.zeros_like(x)
        assert torch.equal(ours(zero), zero)


def test_no_atoms() -> None:
    x = _features("4x0e + 3x1o", atoms=0)
    assert NormActivation(o3.Irreps("4x0e + 3x1o"), "silu")(x).shape == (0, 13)
