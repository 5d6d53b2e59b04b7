"""The engine on a GPU beside the one in C++; needs neither ase nor a neighbour search."""

from __future__ import annotations

import pytest
import torch

from bench.crystal import crystal
from nequip_fast.engine import compile, network, pairs, rows
from nequip_fast.model import build_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUTOFF, TYPES = 4.0, ["H", "C", "O"]


def potentials(dtype, radial="table", **settings):
    """(on the CPU in float64, on the GPU)"""
    common = {"seed": 0, "type_names": TYPES, "r_max": CUTOFF, "avg_num_neighbors": 20.0, "model_dtype": "float64"}
    preset = {"builder": "PresetNequIPGNNModel", "preset": "M"} if not settings else {"builder": "NequIPGNNModel"}
    program = compile(build_model({**preset, **settings, **common}), radial=radial, verify=False)
    gpu = compile(build_model({**preset, **settings, **common}), radial=radial, dtype=dtype, verify=False).to("cuda")
    return program._engine, gpu._engine


def assert_equal(found, expected, dtype):
    bound = 1e-9 if dtype == torch.float64 else 1e-5
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < bound


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("radial", ["table", "exact"])
def test_equals_the_engine_in_c(radial, dtype):
    """Eager, then captured, and the same bits in a second run."""
    cpu, gpu = potentials(dtype, radial)
    given = crystal(2, len(TYPES), CUTOFF, 20)
    expected = cpu.evaluate(*given)
    assert_equal(gpu.evaluate(*given), expected, dtype)
    first, second = (gpu.evaluate(*given, kept="pairs") for _ in range(2))
    assert gpu._step.captured is not None
    assert_equal(first, expected, dtype)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_other_kinds_of_model():
    """Full parity, norms in place of gates, repulsion of nuclei; eager and captured."""
    settings = {"num_layers": 3, "l_max": 3, "num_features": 8, "parity": True}
    repulsion = {
        "pair_potential": {"_target_": "nequip.nn.pair_potential.ZBL", "chemical_species": TYPES, "units": "metal"}
    }
    for more in ({}, {"convnet_nonlinearity_type": "norm"}, repulsion):
        cpu, gpu = potentials(torch.float64, **settings, **more)
        given = crystal(1, len(TYPES), CUTOFF, 20)
        for kept in (None, 1, 1):
            assert_equal(gpu.evaluate(*given, kept=kept), cpu.evaluate(*given), torch.float64)


def test_atoms_without_neighbours():
    cpu, gpu = potentials(torch.float64)
    given = crystal(1, len(TYPES), CUTOFF, 20)
    none = torch.zeros(len(given.types) + 1, dtype=torch.int64), given.pairs[1][:0], given.pairs[2][:0]
    for kept in (None, 1, 1):
        energies, forces, strain = gpu.evaluate(*given._replace(pairs=none), kept=kept)
        torch.testing.assert_close(energies, cpu.evaluate(*given._replace(pairs=none))[0])
        assert not forces.any()
        assert not strain.any()


def test_a_captured_step_follows_its_pairs():
    """Other positions, other pairs in the same memory, more pairs than there is room for, another number of atoms."""
    cpu, gpu = potentials(torch.float64)
    generator = torch.Generator().manual_seed(1)
    for number, (copies, skin) in enumerate(((2, 0.5), (2, 0.45), (2, 1.5), (1, 0.5))):
        given = crystal(copies, len(TYPES), CUTOFF, 20, skin)
        for _ in range(2):
            moved = 0.02 * torch.randn(given.positions.shape, generator=generator, dtype=torch.float64)
            given = given._replace(positions=given.positions + moved)
            assert_equal(gpu.evaluate(*given, kept=number), cpu.evaluate(*given), torch.float64)
    assert gpu.num_prepared == 3


def test_a_captured_step_finds_more_edges():
    """The same pairs closer together than when the step was captured, and further apart again."""
    cpu, gpu = potentials(torch.float64)
    given = crystal(2, len(TYPES), CUTOFF, 20, skin=1.5)
    for scale in (1.2, 1.0, 0.85, 1.2):
        scaled = given._replace(positions=scale * given.positions, cells=scale * given.cells)
        assert_equal(gpu.evaluate(*scaled, kept="pairs"), cpu.evaluate(*scaled), torch.float64)
    assert gpu.num_prepared == 1


def test_in_parts(monkeypatch):
    """What is done for millions of atoms."""
    for module, name, value in (
        (network, "_MANY_ATOMS", 100), (network, "_MANY_EDGES", 1000), (rows, "_ROWS_AT_ONCE", 70),
        (rows, "_FEW_ROWS", 0), (pairs, "_MANY", 300),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    cpu, gpu = potentials(torch.float64)
    given = crystal(2, len(TYPES), CUTOFF, 20)
    for kept in (None, 1, 1):
        assert_equal(gpu.evaluate(*given, kept=kept), cpu.evaluate(*given), torch.float64)


def test_structures_together():
    """Two structures in one call are what each is alone."""
    _, gpu = potentials(torch.float64)
    one = crystal(1, len(TYPES), CUTOFF, 20)
    ptr, neighbour, shift = one.pairs
    count = len(one.types)
    both = (
        one.positions.repeat(2, 1), one.types.repeat(2), torch.arange(2).repeat_interleave(count),
        one.cells.repeat(2, 1),
        (torch.cat([ptr, ptr[1:] + ptr[-1]]), torch.cat([neighbour, neighbour + count]), shift.repeat(2, 1)),
    )  # fmt: skip
    for alone, together in zip(gpu.evaluate(*one), gpu.evaluate(*both), strict=True):
        for half in together.chunk(2):
            torch.testing.assert_close(half, alone, rtol=1e-10, atol=1e-10)


def test_what_is_wrong_is_said_by_a_captured_step_too():
    _, gpu = potentials(torch.float32)
    given = crystal(1, len(TYPES), CUTOFF, 20)
    gpu.evaluate(*given, kept=1)
    for positions, message in (
        (given.positions * float("nan"), "not finite"), (torch.zeros_like(given.positions), "same place"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=message):
            gpu.evaluate(*given._replace(positions=positions), kept=1)
    assert torch.isfinite(gpu.evaluate(*given, kept=1)[1]).all()
