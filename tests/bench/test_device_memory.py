"""Memory of the engine on a GPU, as far as it can be counted without one."""

from __future__ import annotations

import torch

from bench.device_memory import Allocator, count
from nequip_fast.ops import backend

GIB = 1 << 30


def test_the_allocator_splits_and_joins():
    allocator = Allocator()
    for key, size in enumerate((4, 2, 1)):
        allocator.take(key, size * GIB)
    assert allocator.reserved == 7 * GIB
    allocator.give_back(0)
    allocator.take(3, GIB)  # of the four
    allocator.take(4, 3 * GIB)
    assert allocator.reserved == 7 * GIB
    allocator.give_back(3)
    allocator.give_back(4)
    allocator.take(5, 4 * GIB)
    assert allocator.reserved == 7 * GIB
    allocator.take(6, 5 * GIB)
    assert allocator.reserved == 12 * GIB


def test_two_million_atoms_fit_80_gigabytes():
    found = count("M-2097152")
    assert found["reserved_gigabytes"] < 80
    assert found["allocated_bytes_per_atom"] < 36_000


def test_a_step_of_few_atoms_is_few_operators():
    """Each is a launch or two, which is what bounds small systems."""
    assert count("S-64")["operators"] <= 155
    assert not backend.EMULATED  # it leaves no trace
    assert not isinstance(torch.empty(1), torch._subclasses.FakeTensor)
