"""The modifier of nequip: kernels against nequip's, and nequip's commands with and without it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import nequip_fast
import nequip_fast.integrations.nequip  # as nequip's entry point does
from nequip_fast.dtypes import default_dtype
from nequip_fast.errors import InputError
from nequip_fast.model.convert import _config
from tests.drop_in import assert_same_values, derivatives, random_like
from tests.helpers import all_paths
from tests.integrations import nequip_commands as commands
from tests.integrations.lammps_stand_in import evaluate
from tests.integrations.nequip_commands import MODIFIER
from tests.integrations.structures import shaken_copper
from tests.model.model_cases import build_oracle, call, config, inputs, nequip_globals, relative_error

pytest.importorskip("nequip")
from nequip.model.modify_utils import get_all_modifiers, modify, only_apply_persistent_modifiers
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.mlp import ScalarMLPFunction


def product_scatter(irreps: str, l_max: int) -> TensorProductScatter:
    """nequip's module with all paths to degrees up to ``l_max``."""
    in1, sh, out, paths = all_paths(irreps, l_max, l_max)
    arranged, places, _ = out.sort()
    return TensorProductScatter(in1, sh, arranged, [(i, j, places[k], "uvu", True) for i, j, k in paths])


@pytest.mark.parametrize(
    ("nodes", "edges"), [(6, 25), (4, 0), (1, 3)], ids=["unsorted with isolated atoms", "no edges", "an atom alone"]
)
@pytest.mark.parametrize(
    ("irreps", "l_max"), [("3x0e+2x1o", 1), ("2x0o+3x1e+1x2e", 2), ("1x0e+2x1o+1x2e+1x3o+1x4e", 4)]
)
def test_the_kernel_equals_nequips_to_second_derivatives(irreps, l_max, nodes, edges):
    """By features, harmonics and weights, float64; nequip's own test has l to 2, first derivatives and a GPU."""
    torch.manual_seed(nodes)
    with default_dtype(torch.float64):
        module = product_scatter(irreps, l_max)
        receiver, sender = torch.randint(0, max(nodes - 1, 1), (2, edges))  # the last atom has no edge
        widths = (nodes, module.tp.irreps_in1.dim), (edges, module.tp.irreps_in2.dim), (edges, module.tp.weight_numel)
        tensors = random_like(widths)
        expected = derivatives(lambda x, y, w: module(x, y, w, receiver, sender), tensors, [])
        nequip_fast.accelerate(module)
        assert_same_values(derivatives(lambda x, y, w: module(x, y, w, receiver, sender), tensors, []), expected)


def test_weights_that_autocast_made_shorter():
    module = nequip_fast.accelerate(product_scatter("3x0e+2x1o", 1))
    x, y, w = (torch.randn(n, d) for n, d in ((2, 9), (4, 4), (4, module.tp.weight_numel)))
    ends = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    expected = module(x, y, w.bfloat16().float(), *ends)
    torch.testing.assert_close(module(x, y, w.bfloat16(), *ends), expected)


def test_another_version_of_a_module_is_left():
    """One that has the same parts and computes something else from them."""
    other = type(
        "ScalarMLPFunction",
        (ScalarMLPFunction,),
        {"__module__": "nequip.nn.mlp", "forward": lambda self, x: 2 * self.mlp(x)},
    )
    model = other(input_dim=4, output_dim=3, hidden_layers_depth=1, hidden_layers_width=5)
    with pytest.raises(InputError, match="computes something else"):
        nequip_fast.accelerate(model)
    assert type(model) is other


def test_the_modifier_is_one_like_others():
    """Found in every model, applied by nequip's own function, left out where nequip packages, neutral where we read."""
    plain, model = build_oracle(config("parity")), build_oracle(config("parity"))
    modifiers = [{"modifier": MODIFIER}]
    assert MODIFIER in get_all_modifiers(model)
    with only_apply_persistent_modifiers(persistent_only=True):
        modify(model, modifiers)
    assert not hasattr(model, "acceleration")
    assert modify(model, modifiers) is model
    assert model.acceleration.replaced
    assert not model.acceleration.left
    assert model.metadata["nequip_custom_ops_libs"] == "nequip_fast"
    data = inputs("crystals")
    assert relative_error(call(model, data)["forces"], call(plain, data)["forces"]) < 1e-10
    modified, bare = ({"_target_": "nequip.model.modify", "modifiers": modifiers, "model": _model()}, _model())
    assert _config(modified, "0.19.1", False) == _config(bare, "0.19.1", False)


@pytest.mark.parametrize(
    ("module", "missing"), [("model.modify_utils", MODIFIER), ("scripts._package_utils", "packages of nequip_fast's")]
)
def test_a_nequip_that_is_too_different_can_still_be_imported(module, missing):
    with pytest.warns(UserWarning, match=f"goes without {missing}"):
        nequip_fast.integrations.nequip._register_or_warn(ModuleType(module), f"nequip.{module}")


def _model() -> dict[str, str]:
    return {"_target_": "nequip.model.NequIPGNNModel"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the same training of nequip's model, with the modifier and without, and of ours; packages of the
    last two, and the first of them compiled with the modifier.
    """
    folder = tmp_path_factory.mktemp("nequip")
    ours = {"training_module.model.model._target_": "nequip_fast.model.NequIPGNNModel"}
    steps = [
        commands.train(folder / "plain"),
        commands.train(folder / "fast", [MODIFIER]),
        commands.train(folder / "ours", **ours),
        commands.package(folder / "ours" / "last.ckpt", folder / "ours.nequip.zip"),
        commands.package(folder / "fast" / "last.ckpt", folder / "model.nequip.zip"),
        commands.compile(folder / "model.nequip.zip", folder / "model.nequip.pt2", MODIFIER),
    ]
    commands.run(folder, steps)
    return folder


@pytest.mark.parametrize(("other", "named"), [("fast", MODIFIER), ("ours", "nequip_fast.model.NequIPGNNModel")])
def test_training_has_the_same_losses(trained, other, named):
    """Three epochs from the same seed: every loss and metric of every step."""
    expected, found = commands.metrics(trained / "plain"), commands.metrics(trained / other)
    assert len(expected) > 100
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert named in (trained / other / "hparams.yaml").read_text()


def test_a_model_of_ours_that_nequip_trained(trained):
    """Read without nequip, its checkpoint and package give the forces of nequip's own model, trained likewise."""
    atoms = shaken_copper()
    expected, *found = (
        nequip_fast.compile(trained / name, radial="exact", trust=True)(atoms).forces
        for name in ("plain/last.ckpt", "ours/last.ckpt", "ours.nequip.zip")
    )
    assert np.abs(expected).max() > 1e-3
    for forces in found:
        np.testing.assert_allclose(forces, expected, rtol=1e-6, atol=1e-6)


def test_packaged_and_compiled_models_in_ase(trained):
    """A package holds copies of nequip's classes. The compiled file imports our operators before it is loaded."""
    with nequip_globals(), default_dtype(torch.float64):  # nequip sets it once, and other tests put it back
        compare_in_ase(trained)


def compare_in_ase(trained: Path) -> None:
    from nequip.integrations.ase import NequIPCalculator
    from nequip.model.saved_models.load_utils import load_saved_model

    atoms = shaken_copper()
    compiled = NequIPCalculator.from_compiled_model(
        str(trained / "model.nequip.pt2"), device="cpu", chemical_species_to_atom_type_map=True
    )
    model = load_saved_model(str(trained / "model.nequip.zip")).eval()
    calculator = NequIPCalculator(model, device="cpu", transforms=compiled.transforms)
    calculator.calculate(atoms)
    expected, names = calculator.results, list(model.state_dict())
    assert np.abs(expected["forces"]).max() > 1e-3
    calculator.model = nequip_fast.accelerate(model, inplace=False)
    assert not calculator.model.acceleration.left
    assert list(calculator.model.state_dict()) == names
    for accelerated in (compiled, calculator):
        accelerated.calculate(atoms)
        for quantity in ("energy", "forces", "stress"):
            np.testing.assert_allclose(accelerated.results[quantity], expected[quantity], rtol=1e-10, atol=1e-10)


def test_in_lammps(trained):
    """nequip's ML-IAP interface: features of local and ghost atoms go in, those of local atoms come out."""
    atoms = shaken_copper()
    with nequip_globals(), default_dtype(torch.float64):
        plain, fast = (evaluate(trained / "model.nequip.zip", atoms, names) for names in ([], [MODIFIER]))
    assert fast.ntotal > 2 * fast.nlocal
    assert float(plain.forces.abs().max()) > 1e-3
    torch.testing.assert_close(fast.forces, plain.forces, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fast.energy, plain.energy, rtol=1e-12, atol=1e-12)
