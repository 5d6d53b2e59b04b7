"""With nequip's weights our model gives nequip's energies, forces, stress and parameter gradients."""

from __future__ import annotations

import pytest
import torch

from nequip_fast.model import build_model, load_nequip_state_dict
from tests.model.model_cases import (
    CASES,
    batch,
    build_oracle,
    call,
    config,
    crystals,
    graph,
    inputs,
    oracle,
    pair,
    relative_error,
)

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
QUANTITIES = {
    "molecules": ("total_energy", "atomic_energy", "forces"),
    "crystals": ("total_energy", "atomic_energy", "forces", "stress", "virial"),
}
GRADIENT_CASES = ("preset_S", "parity", "odd_channels", "zbl", "bessel", "norm", "learnable_shift", "full")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_energies_forces_and_stress(case: str, dtype: str) -> None:
    theirs, ours = pair(case, dtype)
    for kind, quantities in QUANTITIES.items():
        data = inputs(kind)
        expected, found = call(theirs, data), call(ours, data)
        for quantity in quantities:
            assert found[quantity].dtype == expected[quantity].dtype == torch.float64
            assert relative_error(found[quantity], expected[quantity]) < TOLERANCE[dtype], (kind, quantity)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_preset_xl(dtype: str) -> None:
    settings = config({"builder": "PresetNequIPGNNModel", "preset": "XL"}, dtype)
    theirs, ours = build_oracle(settings), build_model({**settings, "seed": 99}).eval()
    load_nequip_state_dict(ours, theirs.state_dict())
    data = graph(crystals()[1], r_max=3.5)  # at 2.5 Å forces cancel to a fiftieth, with them the digits of float32
    expected, found = call(theirs, data), call(ours, data)
    for quantity in QUANTITIES["crystals"]:
        assert relative_error(found[quantity], expected[quantity]) < TOLERANCE[dtype], quantity


@pytest.mark.parametrize("case", CASES)
def test_names_order_and_initial_weights(case: str) -> None:
    theirs, ours = oracle(case, "float64"), build_model(config(case))
    weights = {
        name.removeprefix("model.func."): value
        for name, value in theirs.state_dict().items()
        if value.numel() and not name.endswith("output_mask") and "_w3j_" not in name
    }
    assert list(ours.state_dict()) == list(weights)
    assert [name for name, _ in ours.named_parameters()] == [
        name.removeprefix("model.func.") for name, _ in theirs.named_parameters()
    ]
    for name, value in ours.state_dict().items():
        assert value.dtype == weights[name].dtype, name
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("case", GRADIENT_CASES)
def test_parameter_gradients_of_a_force_loss(case: str) -> None:
    theirs, ours = pair(case)
    data = inputs("crystals")
    expected = _parameter_gradients(theirs, data)
    found = _parameter_gradients(ours, data)
    assert len(expected) == len(found)
    for name, value in found.items():
        reference = expected[f"model.func.{name}"]
        if reference.abs().max() == 0:
            assert value.abs().max() < 1e-12, name
        else:
            assert relative_error(value, reference) < 1e-9, name


def _parameter_gradients(model: torch.nn.Module, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.train()
    try:
        outputs = call(model, data)
        targets = torch.sin(torch.arange(data["pos"].numel(), dtype=torch.float64)).view(-1, 3)
        loss = (outputs["forces"] - targets).square().mean() + outputs["total_energy"].square().mean()
        loss = loss + (outputs["stress"] - 0.1).square().mean()
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return dict(zip(names, gradients, strict=True))
    finally:
        model.eval()


def test_energy_only_model() -> None:
    theirs, ours = pair("parity")
    ours.do_derivatives = False
    data = inputs("molecules")
    outputs = call(ours, data)
    assert set(outputs) - set(data) == {"total_energy", "atomic_energy"}
    assert relative_error(outputs["total_energy"], call(theirs, data)["total_energy"]) < 1e-12


def test_batch_of_cells_equals_each_cell_alone() -> None:
    _, ours = pair("odd_channels")
    graphs = [graph(atoms) for atoms in crystals()]
    together, apart = ours(batch(graphs)), [ours(data) for data in graphs]
    for quantity in ("total_energy", "atomic_energy", "forces", "stress", "virial"):
        assert relative_error(together[quantity], torch.cat([out[quantity] for out in apart])) < 1e-12
