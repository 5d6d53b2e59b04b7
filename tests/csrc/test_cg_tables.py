"""The Clebsch-Gordan tables that the kernels are built from."""

import runpy
from pathlib import Path

import pytest
import torch
from e3nn import o3

from tests.helpers import TRIPLES

GENERATE = runpy.run_path(str(Path(__file__).parents[2] / "csrc/cg/generate.py"), run_name="generate")


@pytest.mark.parametrize("triple", [*TRIPLES, (5, 4, 6), (6, 6, 6)], ids=str)
def test_equals_e3nn(triple):
    """All coefficients to rounding, and no term kept that is zero."""
    terms = GENERATE["wigner_3j"](*triple)
    table = torch.zeros([2 * l + 1 for l in triple], dtype=torch.float64)
    for m1, m2, m3, value in terms:
        table[m1, m2, m3] = value
    torch.testing.assert_close(table, o3.wigner_3j(*triple, dtype=torch.float64), rtol=0, atol=1e-15)
    assert len(terms) == int(table.count_nonzero())
    assert [(m1, m3, m2) for m1, m2, m3, _ in terms] == sorted((m1, m3, m2) for m1, m2, m3, _ in terms)
