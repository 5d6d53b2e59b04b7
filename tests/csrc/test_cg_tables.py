"""The Clebsch-Gordan coefficients that all kernels are built from."""

import pytest
import torch
from e3nn import o3


def triples(l_max: int) -> list[tuple[int, int, int]]:
    """All degrees up to l_max that obey the triangle rule."""
    degrees = range(l_max + 1)
    return [(a, b, c) for a in degrees for b in degrees for c in range(abs(a - b), min(a + b, l_max) + 1)]


HIGH = [(7, 4, 9), (11, 11, 0), (11, 8, 5), (9, 10, 11), (11, 11, 11)]


@pytest.mark.parametrize("triple", [*triples(6), *HIGH], ids=str)
def test_equals_e3nn(triple):
    """All coefficients to rounding, no term kept that is zero, and the order that the kernels count on."""
    components, values = torch.ops.nequip_fast.coupling(*triple)
    terms = torch.tensor(components).view(-1, 3)
    table = torch.zeros([2 * l + 1 for l in triple], dtype=torch.float64)
    table[tuple(terms.T)] = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(table, o3.wigner_3j(*triple, dtype=torch.float64), rtol=0, atol=2e-15)
    assert len(values) == int(table.count_nonzero())
    order = [(m1, m3, m2) for m1, m2, m3 in terms.tolist()]
    assert order == sorted(order)


@pytest.mark.parametrize("triple", [(1, 1, 3), (0, 0, -1), (-1, 1, 1), (30, 20, 20)], ids=str)
def test_degrees_that_do_not_couple(triple):
    """Degrees outside the triangle rule, or too high for exact integers, are an error."""
    with pytest.raises(RuntimeError, match="no coupling of degrees"):
        torch.ops.nequip_fast.coupling(*triple)
