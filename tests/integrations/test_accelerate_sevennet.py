"""Accelerated models of SevenNet against themselves."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor

import nequip_fast
from nequip_fast.integrations import modules
from nequip_fast.integrations.sevennet import SevenNet
from tests.engine.reference import evaluate
from tests.integrations.structures import structures
from tests.integrations.test_accelerate import assert_same_state, state
from tests.integrations.test_sevennet import SHIPPED, build, errors, graph
from tests.model.model_cases import crystals, molecules

pytest.importorskip("sevenn")
from sevenn.calculator import SevenNetCalculator

CASES = ("parity_l3_nequip", "no_parity_l2_linear", "other_activations", "irreps_manual")


@pytest.mark.parametrize("case", CASES)
def test_energies_forces_and_stress(case):
    """Float64, molecules (one an atom alone) and crystals; every convolution is ours."""
    source = SevenNet(build(case))  # keeps a copy, whose precision is float64 throughout
    before = state(source._model)
    graphs = [graph(crystals(), source), graph(molecules(), source)]
    expected = [source.evaluate(data) for data in graphs]
    report = nequip_fast.accelerate(source._model, "train").acceleration
    assert not report.left
    assert list(report.replaced.values()).count("sevenn.IrrepsConvolution") == 3
    assert_same_state(source._model, before)
    for data, values, periodic in zip(graphs, expected, (True, False), strict=True):
        found = errors(source.evaluate(data), values, periodic)
        assert max(found.values()) < 1e-10, found


def test_gradients_of_a_force_loss():
    source = SevenNet(build("parity_l1_nequip"))
    source._model.train()
    data = graph(crystals(), source)
    expected = force_gradients(source, data)
    nequip_fast.accelerate(source._model, "train")
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-4
    for name, gradient in force_gradients(source, data).items():
        assert float((gradient - expected[name]).abs().max()) < 1e-10 * largest, name


def force_gradients(source: SevenNet, data: dict[str, Tensor]) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    hook = source._model.register_forward_hook(lambda _module, _inputs, output: outputs.update(output))
    source.evaluate(data)
    hook.remove()
    loss = (outputs["inferred_force"] - 0.1).square().sum()
    parameters = {name: p for name, p in source._model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(parameters, gradients, strict=True))


@pytest.mark.parametrize("name", ["SevenNet-0", "SevenNet-MF-0, PBE", "SevenNet-MF-0, R2SCAN"])
def test_the_calculator(name):
    """Float32, models that SevenNet ships, multi-modal ones too; a copy leaves the original as it was."""
    path, modal = SHIPPED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of accelerators, which need a GPU
        calculator = SevenNetCalculator(path, device="cpu", modal=modal)
    atoms = structures()[40]
    calculator.calculate(atoms)
    expected, original = calculator.results, calculator.model
    calculator.model = nequip_fast.accelerate(original, inplace=False)
    assert not calculator.model.acceleration.left
    assert type(original._modules["0_convolution"]).__module__ == "sevenn.nn.convolution"
    assert_same_state(calculator.model, state(original))
    calculator.calculate(atoms)
    for quantity in ("energy", "energies", "forces", "stress"):
        assert calculator.results[quantity] == pytest.approx(expected[quantity], rel=1e-5, abs=1e-5), quantity


@pytest.mark.parametrize("asked", ["before", "after"])
def test_virials_of_atoms(asked):
    """They take the edges of a pair one by one, whenever they are asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, fast = (
            SevenNetCalculator(SHIPPED["SevenNet-0"][0], device="cpu", compute_atomic_virial=at_once)
            for at_once in (True, asked == "before")
        )
    nequip_fast.accelerate(fast.model)
    if asked == "after":
        fast.model.force_output.use_atomic_virial = True
    atoms = structures()[40].repeat((1, 1, 2))
    atoms.rattle(0.05, seed=1)
    for calculator in (plain, fast):
        calculator.calculate(atoms)
    assert abs(plain.results["stresses"]).max() > 1e-3
    assert fast.results["stresses"] == pytest.approx(plain.results["stresses"], rel=1e-4, abs=1e-4)


def test_edges_of_a_pair_are_computed_once(monkeypatch):
    """Half of the rows of radial networks, in energies, forces and stress that stay the same."""
    shares = []
    say = modules._say_pairs

    def counted(radial, *arguments):
        say(radial, *arguments)
        shares.append(float((radial.first_of_pair == torch.arange(len(radial))).double().mean()))

    monkeypatch.setattr(modules, "_say_pairs", counted)
    source = SevenNet(build("parity_l1_nequip"))
    data = graph(crystals(), source)
    expected = source.evaluate(data)
    nequip_fast.accelerate(source._model, "train")
    found = errors(source.evaluate(data), expected, True)
    assert shares == [0.5]
    assert max(found.values()) < 1e-10, found


def test_a_model_that_loses_its_forces_gives_gradients_of_single_edges():
    """As SevenNet's interface to LAMMPS makes it, which differentiates by the vectors of edges."""
    gradients = []
    for accelerated in (False, True):
        source = SevenNet(build("parity_l1_nequip"))
        model, given = source._model, {}
        hook = model.register_forward_pre_hook(lambda _model, inputs, given=given: given.update(inputs[0]))
        source.evaluate(graph(crystals(), source))
        hook.remove()
        if accelerated:
            nequip_fast.accelerate(model, "train")
        model.delete_module_by_key("force_output")
        vectors = given["edge_vec"].detach().requires_grad_()
        energy = model({**given, "edge_vec": vectors})["inferred_total_energy"].sum()
        gradients.append(torch.autograd.grad(energy, vectors)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


def test_the_engine_takes_an_accelerated_model():
    source = SevenNet(build("parity_l1_nequip"))
    data = graph(crystals(), source)
    accelerated = SevenNet(nequip_fast.accelerate(build("parity_l1_nequip")))
    found = errors(evaluate(accelerated.program(), data), source.evaluate(data), periodic=True)
    assert max(found.values()) < 1e-12, found


def test_ghost_atoms():
    """In one of many processes features of the neighbours' atoms come from outside, and only its own go on."""
    layer = copy.deepcopy(build("parity_l1_nequip")._modules["1_convolution"])
    product = layer.convolution
    local, ghosts, edges = 5, 3, 40
    data = {
        layer.key_x: torch.randn(local, product.irreps_in1.dim, dtype=torch.float64),
        "x_ghost": torch.randn(ghosts, product.irreps_in1.dim, dtype=torch.float64),
        "nlocal": torch.tensor([local]),
        layer.key_filter: torch.randn(edges, product.irreps_in2.dim, dtype=torch.float64),
        layer.key_weight_input: torch.randn(edges, layer.weight_nn.hs[0], dtype=torch.float64),
        layer.key_edge_idx: torch.stack(
            [torch.randint(0, local, (edges,)), torch.randint(0, local + ghosts, (edges,))]
        ),
    }
    layer.is_parallel = True
    expected = layer(dict(data))[layer.key_x]
    found = nequip_fast.accelerate(layer)(dict(data))[layer.key_x]
    assert found.shape == (local, product.irreps_out.dim)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
