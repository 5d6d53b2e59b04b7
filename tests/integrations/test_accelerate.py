"""Accelerated models compute what they computed before, with the same state."""

from __future__ import annotations

import copy
import pickle

import e3nn.nn
import pytest
import torch
from e3nn import o3
from nequip.nn import with_edge_vectors_
from torch import Tensor, nn

import nequip_fast
from nequip_fast.adoption import Adoptable
from nequip_fast.dtypes import default_dtype
from nequip_fast.errors import InputError
from nequip_fast.integrations import modules
from nequip_fast.model import build_model
from nequip_fast.nn.activation_names import name_by_value
from nequip_fast.ops import mlp, product_with_rows
from tests.drop_in import assert_same_values, derivatives, random_like
from tests.model.model_cases import build_oracle, call, config, inputs, relative_error

MODELS = ("preset_S", "odd_channels", "norm", "full")


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_state(found: nn.Module, expected: dict[str, Tensor]) -> None:
    """Names, their order, types and values."""
    values = found.state_dict()
    assert list(values) == list(expected)
    for name, value in expected.items():
        assert values[name].dtype == value.dtype, name
        assert torch.equal(values[name], value), name


@pytest.mark.parametrize("case", MODELS)
def test_models_of_nequip(case):
    """Energies, forces, stress and parameter gradients of a force loss, float64; no module of e3nn's is called."""
    model = build_oracle(config(case))
    data, before = inputs("crystals"), state(model)
    expected, expected_gradients = call(model, data), force_gradients(model, data)
    accelerated = nequip_fast.accelerate(model, "train", inplace=False)
    assert not accelerated.acceleration.left
    assert_same_state(accelerated, before)
    assert accelerated.acceleration.replaced.keys() >= {
        f"model.func.layer{layer}_convnet.conv.{part}" for layer in (0, 1) for part in ("tp_scatter", "linear_1")
    }
    for quantity in ("total_energy", "atomic_energy", "forces", "stress"):
        assert relative_error(call(accelerated, data)[quantity], expected[quantity]) < 1e-10, quantity
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    for name, gradient in force_gradients(accelerated, data).items():
        assert float((gradient - expected_gradients[name]).abs().max()) < 1e-10 * largest, name
    assert not any(isinstance(module, Adoptable) for module in model.modules())  # it was a copy


@pytest.mark.parametrize("ours", [False, True])
def test_edges_of_a_pair_are_computed_once(monkeypatch, ours):
    """Half of the rows of radial networks, not of the readout; in our own models as well."""
    rows = []

    def counted(x, weights, problem, first=None):
        rows.append((len(x), len(x) if first is None else len(first.unique())))
        return mlp(x, weights, problem, first)

    monkeypatch.setattr("nequip_fast.integrations.modules.mlp", counted)
    monkeypatch.setattr("nequip_fast.nn.mlp.mlp", counted)
    data = inputs("crystals")
    edges, atoms = data["edge_index"].shape[1], len(data["atom_types"])
    settings = config("preset_S")
    model = build_model(settings) if ours else nequip_fast.accelerate(build_oracle(settings))
    rows.clear()
    call(model, data)
    assert rows[:2] == [(edges, edges / 2)] * 2
    assert all(row == (atoms, atoms) for row in rows[2:])


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("case", ["preset_S", "odd_channels"])
def test_self_connections_are_told_the_types(monkeypatch, ours, case):
    """All of them, in later layers too, where nequip leaves ghost atoms out: a row for each type that is there."""
    tables = []

    def counted(x, table, row, w, problem):
        tables.append((table.shape[0], row.shape[0]))
        return product_with_rows(x, table, row, w, problem)

    monkeypatch.setattr("nequip_fast.o3.products.product_with_rows", counted)
    data, settings = inputs("crystals"), config(case)
    model = build_model(settings) if ours else nequip_fast.accelerate(build_oracle(settings))
    call(model, data)
    connections = [m for m in model.modules() if isinstance(m, nequip_fast.o3.FullyConnectedTensorProduct)]
    atoms, types = len(data["atom_types"]), len(data["atom_types"].unique())
    assert tables == [(types, atoms)] * len(connections) != []


def test_attributes_that_changed_are_no_rows_of_the_table():
    """Views of other rows or columns, values written since, copies: the product takes what it is given."""
    model = nequip_fast.accelerate(build_oracle(config("preset_S")))
    embed = next(m for m in model.modules() if isinstance(m, modules.NodeTypeEmbed))
    product = next(m for m in model.modules() if isinstance(m, modules.FullyConnectedTensorProduct))
    types = torch.tensor([1, 0, 0, 1, 1])
    embed.embed_module.weight.requires_grad_()
    y = embed({"atom_types": types})["node_attrs"]
    with torch.no_grad():
        without_gradients = y[:3], y.detach()
    assert all(modules._rows_of_table(view) is None for view in (*without_gradients, y.detach()))
    embed.embed_module.weight.requires_grad_(False)
    y = embed({"atom_types": types})["node_attrs"]
    assert [len(part) for part in modules._rows_of_table(y)] == [2, 5]
    table, row = modules._rows_of_table(y[:3])
    assert torch.equal(table[row], y[:3])
    assert all(modules._rows_of_table(view) is None for view in (y[1:], y[::2], y[:, :-1], y.T, y.clone(), y[0]))
    x = torch.randn(5, product.irreps_in1.dim).to(y)
    expected = product(x, y.clone() + 0.5)
    y += 0.5
    assert modules._rows_of_table(y) is None
    assert relative_error(product(x, y), expected) < 1e-13


def test_fields_of_the_structure_in_the_embedding():
    """nequip's module of it stays, and says so; our own model takes rows for all combinations there are."""
    model, data = build_oracle(config("graph_field")), inputs("crystals")
    expected = call(model, data)
    accelerated = nequip_fast.accelerate(model)
    assert list(accelerated.acceleration.left.values()) == ["NodeTypeEmbed: it embeds fields of the structure as well"]
    for quantity in ("total_energy", "forces"):
        assert relative_error(call(accelerated, data)[quantity], expected[quantity]) < 1e-10, quantity
    own = build_model(config("graph_field"))
    charges = data["charge"].view(-1)[data["batch"]]
    values, table, row = own.type_embed(data["atom_types"], data, data["batch"])
    assert torch.equal(table[row], values)
    assert len(table) == len(torch.stack([data["atom_types"], charges]).unique(dim=1).T)


def test_energies_compile_in_one_graph():
    model = build_oracle(config("preset_S"))
    for module in model.modules():
        if hasattr(module, "do_derivatives"):
            module.do_derivatives = False
    data = inputs("crystals")
    expected = call(model, data)["total_energy"]
    torch._dynamo.reset()
    compiled = torch.compile(nequip_fast.accelerate(model), backend="aot_eager", fullgraph=True)
    assert relative_error(call(compiled, data)["total_energy"], expected) < 1e-12


@pytest.mark.parametrize("leaf", [True, False])
def test_vectors_that_are_given_are_differentiated_by_one_by_one(leaf):
    """nequip then returns the gradients of the edges, those of a pair each by itself."""
    model = build_oracle(config("preset_S"))
    full = with_edge_vectors_(inputs("crystals"))
    forces = []
    for each in (model, nequip_fast.accelerate(copy.deepcopy(model))):
        vectors = full["edge_vectors"].detach().clone()
        data = {name: full[name] for name in ("edge_index", "atom_types")}
        data["edge_vectors"] = vectors if leaf else vectors.requires_grad_() * 1.0
        forces.append(each(data)["edge_forces"])
    assert relative_error(forces[1], forces[0]) < 1e-10


def force_gradients(model: nn.Module, data: dict[str, Tensor]) -> dict[str, Tensor]:
    model.train()
    loss = (call(model, data)["forces"] - 0.1).square().sum()
    names, parameters = zip(*model.named_parameters(), strict=True)
    model.eval()
    return dict(
        zip(names, torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True), strict=True)
    )


def test_float32_and_single_atoms():
    model = build_oracle(config("preset_S", "float32"))
    data = inputs("molecules")  # one of them an atom alone
    expected = call(model, data)
    found = call(nequip_fast.accelerate(model), data)
    assert found["forces"].dtype == torch.float64
    assert relative_error(found["forces"], expected["forces"]) < 1e-5


def test_in_place_the_objects_stay():
    """Parents, optimizers, hooks and copies hold on to the same modules and parameters."""
    model = build_oracle(config("parity"))
    data, before = inputs("crystals"), state(model)
    modules, parameters = list(model.modules()), list(model.parameters())
    assert nequip_fast.accelerate(model, "train") is model
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(parameter.requires_grad for parameter in parameters)
    assert_same_state(model, before)
    model.load_state_dict(before)
    expected = call(model, data)["forces"]
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(call(same, data)["forces"], expected)


def test_inference_freezes_parameters_but_not_positions():
    model = nequip_fast.accelerate(build_oracle(config("preset_S")).train(), "inference")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert call(model, inputs("crystals"))["forces"].abs().max() > 0


class Tree(nn.Module):
    """Modules of e3nn in containers, one of them in two places."""

    def __init__(self) -> None:
        super().__init__()
        irreps = o3.Irreps("3x0e+2x1o+2e")
        self.gate = e3nn.nn.Gate("3x0e", [torch.tanh], "3x0e", [torch.sigmoid], "2x1o+2e")
        self.layers = nn.ModuleList([o3.Linear(irreps, irreps), o3.Linear(irreps, self.gate.irreps_in, biases=True)])
        self.layers.append(self.layers[0])
        self.products = nn.ModuleDict(
            {
                "full": o3.FullyConnectedTensorProduct(irreps, irreps, irreps),
                "square": o3.TensorSquare(irreps, irreps),
                "some": o3.TensorProduct(
                    irreps, irreps, "3x0e+2x1o", [(0, 0, 0, "uuu", True, 0.5), (1, 0, 1, "uvu", True)]
                ),
            }
        )
        self.harmonics = o3.SphericalHarmonics("0e+1o+2e", True, "component")
        self.activation = e3nn.nn.Activation("3x0e+2x1o", [torch.abs, None])
        self.network = e3nn.nn.FullyConnectedNet([1, 4, 1], torch.nn.functional.silu, out_act=True)
        self.scale = nn.Linear(1, 1)  # torch's, of the same name as e3nn's

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        x = self.layers[2](self.layers[0](x))
        x = self.products["full"](x, x) + self.products["square"](x)
        y = self.products["some"](x, x)
        gated = self.gate(self.layers[1](x))
        return torch.cat([gated, self.activation(y), self.harmonics(vectors) * self.scale(self.network(x[:, :1]))], 1)


def test_any_tree_of_modules_of_e3nn():
    torch.manual_seed(0)
    with default_dtype(torch.float64):
        tree = Tree()
        nn.init.normal_(tree.layers[1].bias)
        before, tensors = state(tree), random_like([(5, 14), (5, 3)])
        expected = derivatives(tree, tensors, list(tree.parameters()))
        nequip_fast.accelerate(tree, "train")
        assert_same_values(derivatives(tree, tensors, list(tree.parameters())), expected)
    assert_same_state(tree, before)
    assert tree.acceleration.replaced == {
        "gate": "e3nn.Gate",
        "layers.0": "e3nn.Linear",
        "layers.1": "e3nn.Linear",
        "products.full": "e3nn.FullyConnectedTensorProduct",
        "products.square": "e3nn.TensorSquare",
        "products.some": "e3nn.TensorProduct",
        "harmonics": "e3nn.SphericalHarmonics",
        "activation": "e3nn.Activation",
        "network": "e3nn.FullyConnectedNet",
    }
    assert not tree.acceleration.left


def test_a_single_module_and_its_channels():
    linear = o3.Linear("2x0e+1o", "0e+2x1o", f_in=3, f_out=2)
    x = torch.randn(4, 3, 5)
    expected = linear(x)
    torch.testing.assert_close(nequip_fast.accelerate(linear)(x), expected)


def test_what_cannot_be_replaced_is_said_and_still_works():
    """Its parts are replaced where possible."""
    outside = o3.Linear("2x0e", "2x0e", internal_weights=False)
    gate = e3nn.nn.Gate("2x0e", [torch.exp], "2x0e", [torch.exp], "2x1o")
    model = nn.ModuleDict({"outside": outside, "gate": gate})
    x = torch.randn(3, 10)
    expected = gate(x)
    attributes = dict(vars(gate))
    report = nequip_fast.accelerate(model, "train").acceleration
    assert vars(gate) == attributes
    assert report.replaced == {"gate.mul": "e3nn.ElementwiseTensorProduct"}
    assert set(report.left) == {"outside", "gate", "gate.act_scalars", "gate.act_gates"}
    assert "come from outside" in report.left["outside"]
    assert "no kernel" in str(report)
    assert type(outside) is o3.Linear
    torch.testing.assert_close(gate(x), expected)


def test_torchscript_is_left():
    model = nn.Sequential(o3.Linear("2x0e", "2x0e"), torch.jit.script(o3.Linear("2x0e", "2x0e")))
    report = nequip_fast.accelerate(model, "train").acceleration
    assert report.replaced == {"0": "e3nn.Linear"}
    assert "TorchScript" in report.left["1"]


def test_torch_compiles_the_whole_graph():
    torch._dynamo.reset()
    tree = nequip_fast.accelerate(Tree(), "train")
    tensors = [torch.randn(5, 14), torch.randn(5, 3)]
    compiled = torch.compile(tree, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), tree(*tensors))


def test_functions_are_known_by_their_values():
    """But not one that is trained, which will be another."""
    assert name_by_value(lambda x: x * torch.sigmoid(x)) == "silu"
    assert name_by_value(torch.exp) is None
    assert name_by_value(nn.PReLU(1, init=0.0).double()) is None


def stranger() -> nn.Module:
    """Of a class that has the name of one of e3nn's but nothing of it."""
    return type("Linear", (nn.Module,), {"__module__": "e3nn.elsewhere"})()


@pytest.mark.parametrize(
    ("model", "what", "message"),
    [
        (nn.Linear(2, 2), "train", "no module of nequip, SevenNet or e3nn"),
        (stranger(), "train", "not what its name says"),
        (nn.Linear(2, 2), "trian", "did you mean 'train'"),
    ],
)
def test_errors(model, what, message):
    with pytest.raises(InputError, match=message):
        nequip_fast.accelerate(model, what)
