"""The gate of NequIP's layers against e3nn's, to second order, in float64."""

from __future__ import annotations

import e3nn.nn
import pytest
import torch
from e3nn import o3
from torch.nn.functional import silu

from nequip_fast.nn.model_gate import Gate
from tests.drop_in import derivatives, random_like
from tests.helpers import relative_error


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
def test_equals_e3nn(scalars: str, gated: str, gate_parity: int) -> None:
    acts, names = {1: silu, -1: torch.tanh}, {1: "silu", -1: "tanh"}
    irreps_scalars, irreps_gated = o3.Irreps(scalars), o3.Irreps(gated)
    gates = o3.Irreps([(mul, (0, gate_parity)) for mul, _ in irreps_gated])
    theirs = e3nn.nn.Gate(
        irreps_scalars, [acts[ir.p] for _, ir in irreps_scalars], gates, [acts[ir.p] for _, ir in gates], irreps_gated
    )
    ours = Gate(irreps_scalars, irreps_gated, gate_parity, names, names)
    assert ours.irreps_in == theirs.irreps_in
    assert ours.irreps_out == theirs.irreps_out
    inputs = random_like([(6, ours.irreps_in.dim)])
    for a, b in zip(derivatives(ours, inputs, []), derivatives(theirs, inputs, []), strict=True):
        assert relative_error(a, b) < 1e-12
