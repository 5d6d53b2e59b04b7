"""Each pass by itself: what it leaves out, and that the program still computes the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nequip_fast.engine import Potential
from nequip_fast.engine.describe import NequIPSource
from nequip_fast.engine.passes import collapse, prune, reduce_rank, tabulate
from nequip_fast.engine.program import Envelope
from nequip_fast.engine.radial import hermite, radial_function, value_and_slope
from nequip_fast.model import build_model
from tests.engine.reference import evaluate
from tests.model.model_cases import DEEP, config, inputs, relative_error


def program_of(case):
    return NequIPSource(build_model(config(case))).program()


def segments(program):
    return [len(layer.before_gate) for layer in program.layers]


# the last layer needs less than the layer before it keeps for its residual sum
DEEP_RESNET = {**DEEP, "num_layers": 5, "num_features": 4, "l_max": 1, "convnet_resnet": True}


@pytest.mark.parametrize(
    "case",
    ["parity", "no_parity", "resnet", "norm", "other_activations", "learnable_shift", DEEP_RESNET],
    ids=lambda case: case if isinstance(case, str) else "deep_resnet",
)
def test_pruned_programs_compute_the_same(case):
    program, data = program_of(case), inputs("crystals")
    expected = evaluate(program, data)
    for name, found in evaluate(prune(program), data).items():
        assert relative_error(found, expected[name]) < 1e-12, name
    Potential(prune(program), torch.float64)  # the engine checks how the parts fit


def test_prune_leaves_out_what_the_last_layer_cannot_use():
    """Of both parities those that reach an even scalar; without parity there is nothing to leave out."""
    program = program_of("parity")
    pruned = prune(program)
    assert segments(pruned)[-2] < segments(program)[-2]
    assert sum(len(layer.paths) for layer in pruned.layers) < sum(len(layer.paths) for layer in program.layers)
    assert segments(prune(pruned)) == segments(pruned)
    alone = program_of("no_parity")
    assert segments(prune(alone)) == segments(alone)


def test_a_collapsed_layer_has_no_maps_of_its_input():
    program = program_of("learnable_shift")  # with a self-connection in the first layer
    first = collapse(program).layers[0]
    assert not first.send
    assert not first.self_connection
    (send,) = program.layers[0].send
    torch.testing.assert_close(first.sent_by_type, program.embedding @ send.matrix)
    assert first.bias_by_type.shape == (3, sum(c.mul * (2 * c.l + 1) for c in first.before_gate))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tables_keep_to_the_error_they_report(dtype):
    program = program_of("preset_M")
    tabulated, errors = tabulate(program, dtype)
    x = torch.rand(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.85 + 0.15
    for before, after, error in zip(program.layers, tabulated.layers, errors, strict=True):
        exact = radial_function(program.basis, before.radial)(x.unsqueeze(1))
        found = hermite(after.radial.knots, after.radial.values, x)
        assert float((found - exact).abs().max() / exact.abs().max()) <= 1.05 * error
        assert error <= (7e-8 if dtype == torch.float32 else 5e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1.5e-7), (torch.float64, 5e-14)])
def test_reduced_networks_keep_to_the_error_they_report(dtype, tolerance):
    program = program_of("preset_M")
    reduced, errors = reduce_rank(program, dtype)
    x = torch.rand(5000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = x > 0.15
    assert reduced.lists()[1].numel() < program.lists()[1].numel()
    for before, after, error in zip(program.layers, reduced.layers, errors, strict=True):
        assert error <= tolerance
        exact, slope = value_and_slope(radial_function(program.basis, before.radial), x)
        found, found_slope = value_and_slope(radial_function(program.basis, after.radial), x)
        assert float((seen * (found - exact)).abs().max() / exact.abs().max()) <= 1.05 * error + 1e-15
        assert float((seen * (found_slope - slope)).abs().max() / slope.abs().max()) <= 10.5 * error + 1e-15


def test_reduced_programs_compute_the_same():
    program, data = program_of("preset_M"), inputs("crystals")
    expected = evaluate(program, data)
    for name, found in evaluate(reduce_rank(program, torch.float64)[0], data).items():
        assert relative_error(found, expected[name]) < 1e-12, name


def test_networks_that_are_narrow_stay_as_they_are():
    program = program_of("no_parity")
    reduced, errors = reduce_rank(program, torch.float64)
    assert all(layer.radial.combinations is None for layer in reduced.layers)
    assert errors == [0.0] * len(program.layers)


def test_a_kink_of_the_envelope_is_a_knot():
    """The error is that of smooth functions, though the second derivative jumps where XPLOR begins."""
    program = program_of("no_parity")
    for on in (0.9, 0.8, 1 / 3):
        kinked = replace(program, basis=replace(program.basis, envelope=Envelope("xplor", on)))
        tabulated, errors = tabulate(kinked, torch.float64)
        assert all(on in layer.radial.knots for layer in tabulated.layers)
        assert max(errors) <= 1e-8
