"""Linear maps between rows of segments: products of a library and the one kernel, against einsum map by map."""

from __future__ import annotations

import pytest
import torch

from nequip_fast.engine import rows as rows_module
from nequip_fast.engine.program import Channels, LinearMap
from nequip_fast.engine.rows import LinearMaps, Rows
from tests.helpers import relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.usefixtures("each_kernel")
SOURCE = Rows([Channels(0, 33), Channels(1, 7), Channels(0, 5), Channels(2, 40), Channels(1, 1)])
TARGET = Rows([Channels(1, 35), Channels(0, 16), Channels(3, 2), Channels(2, 9), Channels(0, 70)])
ENDS = [(0, 1), (0, 4), (2, 1), (2, 4), (1, 0), (4, 0), (3, 3)]  # nothing reaches the segment of degree 3


def expected(maps, rows, counts, source=SOURCE, target=TARGET):
    parts = [rows.new_zeros(rows.shape[0], c.mul, 2 * c.l + 1) for c in target.channels]
    of_row = torch.arange(len(counts), device=rows.device).repeat_interleave(torch.tensor(counts, device=rows.device))
    for linear in maps:
        x, matrix = source.segment(rows, linear.source), linear.matrix.to(rows)
        some = matrix[of_row] if matrix.dim() == 3 else matrix.expand(len(rows), -1, -1)
        parts[linear.target] = parts[linear.target] + torch.einsum("nui,nuv->nvi", x, some)
    return torch.cat([part.flatten(1) for part in parts], 1)


@pytest.mark.parametrize("few", [0, 10**9])
@pytest.mark.parametrize("counts", [[0, 0, 0], [1, 0, 0], [17, 0, 24], [3, 30, 16]], ids=str)
@pytest.mark.parametrize("by_type", [False, True])
def test_values_and_derivatives(monkeypatch, few, counts, by_type):
    monkeypatch.setattr(rows_module, "_FEW_ROWS", few)
    shape = (3,) if by_type else ()
    maps = [
        LinearMap(j, k, torch.randn(*shape, SOURCE.channels[j].mul, TARGET.channels[k].mul, dtype=torch.float64))
        for j, k in ENDS
    ]
    if by_type:
        maps[0] = LinearMap(*ENDS[0], maps[0].matrix[0])  # one for all types
    module = LinearMaps(maps, SOURCE, TARGET, torch.float64).to(DEVICE)
    rows = torch.randn(sum(counts), SOURCE.width, dtype=torch.float64, device=DEVICE, requires_grad=True)
    value, g = expected(maps, rows, counts), torch.randn(sum(counts), TARGET.width, dtype=torch.float64, device=DEVICE)
    (gradient,) = torch.autograd.grad(value, rows, g)
    more, more_back = torch.randn_like(value), torch.randn_like(rows)
    for ours, theirs in (
        (module.product(rows.detach(), counts), value), (module.gradient(g, counts), gradient),
        (module.product(rows.detach(), counts, into=more.clone()), value + more),
        (module.gradient(g, counts, into=more_back.clone()), gradient + more_back),
    ):  # fmt: skip
        assert ours.shape == theirs.shape
        assert not len(rows) or relative_error(ours.cpu(), theirs.cpu()) < 1e-13


def test_no_maps():
    """Zeros."""
    value = (
        LinearMaps([], SOURCE, TARGET, torch.float64)
        .to(DEVICE)
        .product(torch.randn(4, SOURCE.width, dtype=torch.float64, device=DEVICE), [4])
    )
    assert torch.equal(value, torch.zeros(4, TARGET.width, dtype=torch.float64, device=DEVICE))


def test_more_than_one_launch_takes(monkeypatch):
    """Many targets, one of them with many sources, and many types, some without rows."""
    monkeypatch.setattr(rows_module, "_FEW_ROWS", 10**9)
    source, target = Rows([Channels(1, 2)] * 70), Rows([Channels(1, 3)] * 18)
    ends = [(j, 1) for j in range(70)] + [(j, j) for j in range(2, 17)]
    counts = [k % 3 for k in range(40)]
    maps = [LinearMap(j, k, torch.randn(len(counts), 2, 3, dtype=torch.float64)) for j, k in ends]
    rows = torch.randn(sum(counts), source.width, dtype=torch.float64)
    found = LinearMaps(maps, source, target, torch.float64).to(DEVICE).product(rows.to(DEVICE), counts)
    assert relative_error(found.cpu(), expected(maps, rows, counts, source, target)) < 1e-13
