"""Every case of the benchmark: nequip_fast and its peers compute the same, and the list has no shape twice."""

from dataclasses import replace

import pytest
import torch

from bench.calls import DOUBLE_BACKWARD, NotOffered
from bench.problems import CASES, CONV, HARMONICS, MODULES
from bench.run import calls_of, compare

SMALL = {
    **{case.name: replace(case, edges=20, neighbours=5) for case in CONV},
    **{case.name: replace(case, rows=5) for case in MODULES},
    **{case.name: replace(case, edges=7) for case in HARMONICS},
}
PEERS = {"conv": ["e3nn"], "harmonics": ["e3nn", "sphericart", "sphericart-jacobian"]}


@pytest.mark.parametrize("name", SMALL)
def test_peers_compute_the_same(name):
    """Values and both orders of derivatives, in float64; ``compare`` raises where two differ."""
    case = SMALL[name]
    contenders = {}
    for peer in ("nequip_fast", *PEERS.get(case.kind, ["e3nn"])):
        contenders[peer] = calls_of(peer, case, torch.float64, "cpu")
    modes = list(contenders["nequip_fast"])
    assert DOUBLE_BACKWARD in modes
    for mode in modes:
        calls = {peer: modes_of[mode] for peer, modes_of in contenders.items() if mode in modes_of}
        assert len(calls) > 1
        compare(case, mode, "float64", calls)


def test_no_shape_twice():
    """A shape that several models share is one case; its description names them."""
    shapes = [(tuple(path[:4] for path in case.problem().paths), case.neighbours) for case in CONV]
    assert len(set(shapes)) == len(shapes)
    assert len(CASES) == len({case.name for case in CASES.values()})


def test_attributes_of_two_types():
    """The self-connection's attributes are rows of an embedding of two types, unless the name says otherwise."""
    for case in MODULES:
        if case.kind.startswith("self-connection"):
            _, attributes, _ = case.tensors(torch.float32, 0, 1)
            distinct = len(attributes.detach().unique(dim=0))
            assert distinct == (case.rows if case.kind.endswith("-distinct") else 2)


def test_a_contender_that_lacks_a_kind_says_so():
    """sphericart has no convolution."""
    with pytest.raises(NotOffered):
        calls_of("sphericart", CONV[0], torch.float32, "cpu")
