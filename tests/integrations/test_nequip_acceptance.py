"""nequip's own basic and energy tests of models, for one of ours and one of nequip's with our modifier."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("nequip")
from tests.peers import nequip_acceptance

FAST = "l2_parity and float64 and not test_ase_compile and not test_mliap and not test_train_time and not torchsim"
MIXINS = {"BasicModelTestsMixin": 9, "EnergyModelTestsMixin": 9}  # how many cases nequip 0.19 has of each


@pytest.mark.parametrize("builder", nequip_acceptance.BUILDERS)
def test_nequips_own_tests_pass(builder):
    cases = nequip_acceptance.run(f"{builder} and {FAST}")
    assert [(case.name, case.message) for case in cases if case.status != nequip_acceptance.PASSED] == []
    assert Counter(case.mixin for case in cases) == MIXINS
