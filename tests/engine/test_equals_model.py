"""The engine against the model it was compiled from, on every kind of model and every instruction set."""

from __future__ import annotations

import pytest
import torch

from nequip_fast.data import keys
from nequip_fast.engine import compile
from nequip_fast.errors import InputError
from nequip_fast.model import build_model
from tests.model.model_cases import CASES, config, inputs, relative_error

COMPILED = [name for name in CASES if name != "graph_field"]
OUTPUTS = keys.TOTAL_ENERGY, keys.ATOMIC_ENERGY, keys.FORCES, keys.VIRIAL


def both(case, kind, dtype=torch.float64, intervals=512, **settings):
    """What the model and the engine say of the molecules or crystals."""
    model, data = build_model(config(case)).eval(), inputs(kind)
    found = compile(model, dtype=dtype, intervals=intervals, verify=False, **settings).evaluate(data)
    expected = model(data)
    if kind == "molecules":  # a model without cells says nothing of strain
        return [(name, found[name], expected[name]) for name in OUTPUTS[:3]]
    return [(name, found[name], expected[name]) for name in (*OUTPUTS, keys.STRESS)]


@pytest.mark.parametrize("kind", ["molecules", "crystals"])
@pytest.mark.parametrize("case", COMPILED)
def test_equals_model(case, kind):
    """With a fine table in float64, to the table's error: 1e-9 in the energies and, slopes losing an order, 1e-7."""
    for name, found, expected in both(case, kind):
        assert relative_error(found, expected) < (1e-9 if "energy" in name else 1e-7), name


@pytest.mark.parametrize("kind", ["molecules", "crystals"])
@pytest.mark.parametrize("case", COMPILED)
def test_equals_model_exactly(case, kind):
    """With the radial networks themselves: to rounding."""
    for name, found, expected in both(case, kind, radial="exact"):
        assert relative_error(found, expected) < 1e-11, name


@pytest.mark.parametrize("radial", ["table", "exact"])
@pytest.mark.parametrize("case", ["preset_M", "parity", "odd_channels", "norm"])
def test_every_instruction_set(case, radial, isa):
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 2e-5)):
        for name, found, expected in both(case, "crystals", dtype, radial=radial):
            assert relative_error(found, expected) < tolerance, name


@pytest.mark.parametrize("skip", ["prune collapse rank", "prune rank", "collapse rank", "prune collapse"])
@pytest.mark.parametrize("case", ["parity", "no_parity", "learnable_shift", "neighbours_by_type", "norm", "resnet"])
def test_each_pass_alone(case, skip):
    """The others left out, beside the model."""
    for name, found, expected in both(case, "crystals", radial="exact", skip=skip.split()):
        assert relative_error(found, expected) < 1e-11, name


def test_residual_sum_in_the_first_layer():
    """It cannot be collapsed; the layer then runs as any other."""
    settings = {"num_layers": 3, "num_features": 4, "l_max": 0, "learnable_shift": True, "convnet_resnet": True}
    model = build_model(config({**settings, "type_embed_num_features": 4, "radial_mlp_width": 8}))
    assert model.layers[0].resnet
    for radial, tolerance in (("exact", 1e-11), ("table", 1e-7)):
        found = compile(model, radial=radial, intervals=512, verify=False).evaluate(inputs("crystals"))
        for name, expected in model(inputs("crystals")).items():
            if name in found:
                assert relative_error(found[name], expected) < tolerance, name


def test_degrees_without_compiled_paths():
    settings = {"num_layers": 3, "l_max": 5, "num_features": 3, "radial_mlp_width": 8}
    for name, found, expected in both(settings, "crystals"):
        assert relative_error(found, expected) < 1e-7, name


def test_table_converges_with_sixth_order():
    """Halving the intervals divides the error of the energies by sixty-four."""
    errors = []
    for intervals in (24, 48, 96):
        _, found, expected = both("preset_M", "crystals", intervals=intervals)[1]
        errors.append(relative_error(found, expected))
    assert errors[0] > 32 * errors[1] > 1024 * errors[2]


@pytest.mark.parametrize("radial", ["table", "exact"])
@pytest.mark.parametrize("case", ["preset_M", "zbl", "per_edge_type_cutoff", "bessel"])
def test_forces_are_the_derivative_of_its_own_energy(case, radial):
    """Of the table's energy, coarse as it may be: central differences along random directions."""
    potential = compile(build_model(config(case)), radial=radial, intervals=64, verify=False)
    data = inputs("crystals")
    direction = torch.randn_like(data["pos"])
    step = 2e-5  # few pairs pass a knot, where the third derivative jumps

    def energy(displacement):
        return float(potential.evaluate({**data, "pos": data["pos"] + displacement * direction})["total_energy"].sum())

    slope = (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)
    work = -float((potential.evaluate(data)["forces"] * direction).sum())
    assert work == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_two_runs_give_the_same_bits(threads):
    torch.set_num_threads(threads)
    potential, data = compile(build_model(config("preset_M")), dtype=torch.float32), inputs("crystals")
    first, second = (potential.evaluate(data) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_threads_and_batches_do_not_matter():
    potential, data = compile(build_model(config("parity"))), inputs("crystals")
    alone = potential.evaluate(data)
    torch.set_num_threads(3)
    for name, value in potential.evaluate(data).items():
        torch.testing.assert_close(value, alone[name], rtol=1e-12, atol=1e-12)


def test_edges_in_any_order():
    potential, data = compile(build_model(config("parity"))), inputs("crystals")
    order = torch.randperm(data["edge_index"].shape[1])
    mixed = {**data, "edge_index": data["edge_index"][:, order], "edge_cell_shift": data["edge_cell_shift"][order]}
    for name, value in potential.evaluate(mixed).items():
        torch.testing.assert_close(value, potential.evaluate(data)[name], rtol=1e-12, atol=1e-12)


def test_models_that_cannot_be_compiled_say_why():
    with pytest.raises(InputError, match="categorical_graph_field_embed"):
        compile(build_model(config("graph_field")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": lambda x: x * float("nan")}, "not finite"),
        ({"pos": lambda x: x * 0, "edge_cell_shift": lambda x: x * 0}, "same place"),
        ({"atom_types": lambda x: x + 3}, "type"),
        ({"edge_index": lambda x: x + 100}, "pair|rise"),
    ],
)
def test_bad_input_is_named(change, message):
    potential, data = compile(build_model(config("no_parity"))), inputs("crystals")
    for name, of in change.items():
        data[name] = of(data[name])
    with pytest.raises(InputError, match=message):
        potential.evaluate(data)
