"""``from nequip_fast import o3, nn`` offers what ``from e3nn import o3, nn`` does."""

import e3nn.nn
import e3nn.o3
import pytest

import nequip_fast.nn
import nequip_fast.o3

PAIRS = [(nequip_fast.o3, e3nn.o3), (nequip_fast.nn, e3nn.nn)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_every_public_name(ours, theirs) -> None:
    assert set(theirs.__all__) <= set(ours.__all__)
    for name in ours.__all__:
        assert hasattr(ours, name), name


def test_irreps_are_e3nns_own() -> None:
    """Irreps made by either package compare equal and pass isinstance checks of the other."""
    assert nequip_fast.o3.Irreps is e3nn.o3.Irreps
    assert nequip_fast.o3.Irrep is e3nn.o3.Irrep


@pytest.mark.parametrize("name", ["TensorProduct", "FullyConnectedTensorProduct", "FullTensorProduct", "Linear"])
def test_modules_are_instances_of_e3nns(name: str) -> None:
    ours = getattr(nequip_fast.o3, name)
    assert ours is not getattr(e3nn.o3, name)
    assert issubclass(ours, getattr(e3nn.o3, name))
