"""Graphs at the edge of what is allowed, against nequip where it accepts them."""

from __future__ import annotations

import ase
import pytest
import torch

from tests.model.model_cases import call, graph, inputs, molecules, pair, relative_error

SHIFT_OF_O = 0.3


def test_no_atoms() -> None:
    _, ours = pair("parity")
    data = graph(ase.Atoms())
    for mode in (ours.eval(), ours.train()):
        outputs = mode(data)
        assert outputs["total_energy"].tolist() == [[0.0]]
        assert outputs["forces"].shape == (0, 3)
    ours.eval()


@pytest.mark.parametrize("case", ["parity", "zbl", "per_edge_type_cutoff", "norm", "preset_S"])
def test_one_atom_has_its_shift_and_no_force(case: str) -> None:
    theirs, ours = pair(case)
    data = graph(ase.Atoms("O", [[1.0, 2.0, 3.0]]))
    assert data["edge_index"].shape == (2, 0)
    outputs = call(ours, data)
    assert outputs["total_energy"].item() == SHIFT_OF_O
    assert outputs["total_energy"].item() == call(theirs, data)["total_energy"].item()
    assert outputs["forces"].tolist() == [[0.0, 0.0, 0.0]]


def test_a_loss_on_one_atom_can_be_trained_on() -> None:
    _, ours = pair("trainable_scale_shift")
    outputs = ours.train()(graph(ase.Atoms("O")))
    (outputs["total_energy"].square().sum() + outputs["forces"].square().sum()).backward()
    shifts = ours.get_parameter("per_type_energy_scale_shift.shifts").grad
    assert shifts is not None
    assert shifts.flatten().tolist() == [0.0, 0.0, pytest.approx(2 * SHIFT_OF_O)]
    ours.eval().zero_grad()


def test_isolated_atom_beside_a_molecule() -> None:
    theirs, ours = pair("odd_channels")
    atoms = molecules()[2] + ase.Atoms("O", [[50.0, 0.0, 0.0]])
    expected, found = call(theirs, graph(atoms)), call(ours, graph(atoms))
    assert relative_error(found["forces"], expected["forces"]) < 1e-10
    assert found["atomic_energy"][-1].item() == SHIFT_OF_O
    assert found["forces"][-1].tolist() == [0.0, 0.0, 0.0]


def test_one_atom_in_a_cell_smaller_than_the_cutoff() -> None:
    theirs, ours = pair("parity")
    data = graph(ase.Atoms("O", cell=[[2.0, 0.1, 0.0], [0.3, 2.2, 0.0], [0.0, 0.4, 1.9]], pbc=True))
    assert (data["edge_index"] == 0).all()
    expected, found = call(theirs, data), call(ours, data)
    for quantity in ("total_energy", "stress"):
        assert relative_error(found[quantity], expected[quantity]) < 1e-10
    assert float(found["forces"].abs().max()) < 1e-12


def test_duplicate_edges_count_twice() -> None:
    theirs, ours = pair("parity")
    data = graph(molecules()[2])
    data["edge_index"] = torch.cat([data["edge_index"], data["edge_index"][:, 3:5]], dim=1)
    expected, found = call(theirs, data), call(ours, data)
    for quantity in ("total_energy", "forces"):
        assert relative_error(found[quantity], expected[quantity]) < 1e-10


def test_partly_periodic_slab() -> None:
    theirs, ours = pair("parity")
    atoms = molecules()[0]
    atoms.set_cell([5.0, 5.5, 20.0])
    atoms.pbc = (True, True, False)
    expected, found = call(theirs, graph(atoms)), call(ours, graph(atoms))
    for quantity in ("forces", "stress"):
        assert relative_error(found[quantity], expected[quantity]) < 1e-10


def test_cell_without_volume_has_no_stress_but_forces() -> None:
    theirs, ours = pair("parity")
    data = graph(molecules()[2])
    data["cell"] = torch.zeros(1, 3, 3, dtype=torch.float64)
    data["edge_cell_shift"] = torch.zeros(data["edge_index"].shape[1], 3, dtype=torch.float64)
    expected, found = call(theirs, data), call(ours, data)
    assert bool(found["stress"].isnan().all())
    assert relative_error(found["virial"], expected["virial"]) < 1e-10
    assert relative_error(found["forces"], expected["forces"]) < 1e-10


def test_non_contiguous_input() -> None:
    _, ours = pair("parity")
    data = inputs("crystals")
    strided = {name: torch.stack([value, value], dim=-1)[..., 0] for name, value in data.items()}
    assert not strided["pos"].is_contiguous()
    expected, found = call(ours, data), ours(strided)
    assert torch.equal(found["forces"], expected["forces"])


def test_evaluation_is_detached_works_without_grad_and_leaves_the_input_alone() -> None:
    _, ours = pair("parity")
    data = inputs("crystals")
    with torch.no_grad():
        outputs = ours(data)
    assert not any(value.requires_grad for value in [*outputs.values(), *data.values()])
    assert torch.equal(outputs["forces"], ours(data)["forces"])
    assert ours.train()(data)["forces"].requires_grad
    ours.eval()
