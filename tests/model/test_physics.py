"""Derivatives, symmetries and limits that hold for any weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import ase
import ase.build
import numpy as np
import pytest
import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.model import GraphModel, build_model
from tests.model.model_cases import R_MAX, config, crystals, graph, inputs, molecules, relative_error

DERIVATIVE_CASES = ("parity", "odd_channels", "norm", "zbl", "per_edge_type_cutoff")


@lru_cache
def model(case: str) -> GraphModel:
    return build_model(config(case)).eval()


def energy(case: str, data: dict[str, Tensor]) -> float:
    ours = model(case)
    ours.do_derivatives = False
    try:
        with torch.no_grad():
            return float(ours(data)["total_energy"].sum())
    finally:
        ours.do_derivatives = True


def central_difference(function: Callable[[float], float], h: float = 1e-4) -> float:
    """Derivative at zero, of fourth order; the norm nonlinearity bends on a scale not far above ``h``."""
    return (8 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12 * h)


@pytest.mark.parametrize("kind", ["molecules", "crystals"])
@pytest.mark.parametrize("case", DERIVATIVE_CASES)
def test_forces_are_minus_the_gradient_of_the_energy(case: str, kind: str) -> None:
    data = inputs(kind)
    forces = model(case)(data)["forces"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        direction = torch.randn(forces.shape, dtype=torch.float64, generator=generator)

        def energy_at(step: float, direction: Tensor = direction) -> float:
            return energy(case, {**data, "pos": data["pos"] + step * direction})

        expected = -central_difference(energy_at)
        scale = float(forces.norm() * direction.norm()) / len(forces) ** 0.5
        assert abs(float((forces * direction).sum()) - expected) < 1e-7 * scale


@pytest.mark.parametrize("case", DERIVATIVE_CASES)
def test_stress_is_the_strain_derivative_over_the_volume(case: str) -> None:
    data = graph(crystals()[1])
    outputs = model(case)(data)
    volume = abs(np.linalg.det(data["cell"][0].numpy()))
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        strain = torch.randn(3, 3, dtype=torch.float64, generator=generator)
        strain = strain + strain.T

        def energy_at(step: float, strain: Tensor = strain) -> float:
            deform = torch.eye(3, dtype=torch.float64) + step * strain
            return energy(case, {**data, "pos": data["pos"] @ deform, "cell": data["cell"] @ deform})

        expected = central_difference(energy_at) / volume
        assert abs(float((outputs["stress"][0] * strain).sum()) - expected) < 1e-7 * float(outputs["stress"].norm())
    torch.testing.assert_close(outputs["virial"], -outputs["stress"] * volume)


@pytest.mark.parametrize("inversion", [False, True])
@pytest.mark.parametrize("case", ["parity", "no_parity", "odd_channels", "full", "norm"])
def test_rotation_and_inversion(case: str, inversion: bool) -> None:
    angles = torch.tensor([0.3, 1.1, -2.0], dtype=torch.float64)
    rotation = o3.angles_to_matrix(*angles)
    if inversion:
        rotation = -rotation
    data = inputs("crystals")
    turned = {**data, "pos": data["pos"] @ rotation.T, "cell": data["cell"] @ rotation.T}
    before, after = model(case)(data), model(case)(turned)
    assert relative_error(after["atomic_energy"], before["atomic_energy"]) < 1e-11
    assert relative_error(after["forces"], before["forces"] @ rotation.T) < 1e-11
    assert relative_error(after["stress"], rotation @ before["stress"] @ rotation.T) < 1e-11


def test_translation_and_zero_total_force() -> None:
    data = inputs("molecules")
    shift = torch.tensor([3.0, -20.0, 7.0], dtype=torch.float64)
    before, after = model("parity")(data), model("parity")({**data, "pos": data["pos"] + shift})
    assert relative_error(after["forces"], before["forces"]) < 1e-10
    assert float(before["forces"].sum(0).abs().max()) < 1e-12


def test_permutation_of_atoms() -> None:
    atoms = crystals()[1]
    order = np.random.default_rng(0).permutation(len(atoms))
    before, after = model("zbl")(graph(atoms)), model("zbl")(graph(atoms[order]))
    assert relative_error(after["atomic_energy"], before["atomic_energy"][order]) < 1e-12
    assert relative_error(after["forces"], before["forces"][order]) < 1e-12


def test_order_of_edges_does_not_matter() -> None:
    data = graph(crystals()[1])
    order = torch.randperm(data["edge_index"].shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = {
        **data,
        "edge_index": data["edge_index"][:, order],
        "edge_cell_shift": data["edge_cell_shift"][order],
    }
    before, after = model("odd_channels")(data), model("odd_channels")(shuffled)
    for quantity in ("total_energy", "forces", "stress"):
        assert relative_error(after[quantity], before[quantity]) < 1e-12


def test_small_cell_equals_its_supercell() -> None:
    atoms = crystals()[0]
    assert min(np.linalg.norm(atoms.cell.array, axis=1)) < R_MAX
    one, eight = model("parity")(graph(atoms)), model("parity")(graph(atoms.repeat(2)))
    assert relative_error(eight["atomic_energy"], one["atomic_energy"].repeat(8, 1)) < 1e-12
    assert relative_error(eight["forces"], one["forces"].repeat(8, 1)) < 1e-12
    assert relative_error(eight["stress"], one["stress"]) < 1e-12


def test_energy_and_forces_vanish_smoothly_at_the_cutoff() -> None:
    """Without a self-connection in the first layer an isolated atom has exactly its shift."""

    def outputs(distance: float) -> dict[str, Tensor]:
        return model("parity")(graph(ase.Atoms("CO", [[0, 0, 0], [0, 0, distance]]), r_max=10.0))

    shifts = torch.tensor([[-1.0], [0.3]], dtype=torch.float64)
    near, beyond = outputs(R_MAX - 1e-3), outputs(R_MAX + 1e-3)
    torch.testing.assert_close(beyond["atomic_energy"], shifts, rtol=0, atol=0)
    assert float(beyond["forces"].abs().max()) == 0.0
    assert 0 < float((near["atomic_energy"] - shifts).abs().max()) < 1e-6
    assert float(near["forces"].abs().max()) < 1e-4


def test_two_runs_are_bit_identical() -> None:
    data = inputs("crystals")
    first, second = model("parity")(data), model("parity")(data)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_forces_differentiate_again_through_positions() -> None:
    """The Hessian of a molecule, from training mode, against differences of the forces."""
    data = graph(molecules()[2])
    ours = build_model(config("parity")).train()
    positions = data["pos"].clone().requires_grad_(True)
    force = ours({**data, "pos": positions})["forces"][0, 0]
    (row,) = torch.autograd.grad(force, positions)
    for atom, axis in ((0, 0), (1, 2)):
        h = torch.zeros_like(data["pos"])
        h[atom, axis] = 1e-4
        plus, minus = (ours({**data, "pos": data["pos"] + s * h})["forces"][0, 0].item() for s in (1, -1))
        assert abs((plus - minus) / 2e-4 - float(row[atom, axis])) < 1e-6 * float(row.abs().max())
