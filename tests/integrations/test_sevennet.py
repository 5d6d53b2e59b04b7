"""SevenNet's models in the engine against SevenNet itself."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import torch

from nequip_fast.data import collate, graph_from_atoms, keys
from nequip_fast.dtypes import default_dtype
from nequip_fast.engine import compile
from nequip_fast.errors import InputError
from nequip_fast.integrations.sevennet import SevenNet, load
from nequip_fast.model import build_model
from tests.engine.reference import evaluate
from tests.integrations.structures import structures
from tests.model.model_cases import config, crystals, molecules, relative_error

pytest.importorskip("sevenn")
import sevenn._const as sevenn_const
from sevenn.model_build import build_E3_equivariant_model
from sevenn.util import chemical_species_preprocess

COMMON = {
    **sevenn_const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG,
    **chemical_species_preprocess(["C", "H", "O"]),
    "cutoff": 4.0,
    "channel": 4,
    "lmax": 2,
    "num_convolution_layer": 3,
    "weight_nn_hidden_neurons": [8, 8],
    "conv_denominator": [6.3, 5.0, 4.0],
    "shift": [0.1, -1.0, 2.0],
    "scale": 1.3,
}
XPLOR = {"cutoff_function_name": "XPLOR", "cutoff_on": 2.9}
IRREPS = ["5x0e", "5x0e+3x1e", "7x0e+2x1e+3x2e", "6x0e"]
CASES: dict[str, dict[str, Any]] = {
    f"{'parity' if parity else 'no_parity'}_l{l}_{connection}": {
        "is_parity": parity,
        "lmax": l,
        "self_connection_type": connection,
    }
    for parity in (True, False)
    for l in (1, 2, 3)
    for connection in ("nequip", "linear")
}
CASES |= {
    "xplor": {"cutoff_function": XPLOR},
    "readout_as_network": {
        "readout_as_fcn": True,
        "readout_fcn_hidden_neurons": [7, 5],
        "readout_fcn_activation": "relu",
    },
    "other_activations": {
        "act_radial": "ssp",
        "act_scalar": {"e": "ssp", "o": "abs"},
        "act_gate": {"e": "ssp", "o": "abs"},
    },
    "other_degrees": {"lmax_edge": 3, "lmax_node": 1},
    "irreps_manual": {"is_parity": False, "irreps_manual": IRREPS, "cutoff_function": XPLOR},
    "both_self_connections": {"self_connection_type": ["nequip", "linear", "nequip"]},
    "scalars_only": {"lmax": 0},
    "global_scale_and_shift": {"shift": 0.3, "scale": 2.0},
}
MODAL = {
    "use_modality": True,
    "_modal_map": {"PBE": 0, "SCAN": 1},
    "_number_of_modalities": 2,
    "use_modal_node_embedding": True,
    "use_modal_self_inter_intro": True,
    "use_modal_self_inter_outro": True,
    "use_modal_output_block": True,
    "use_modal_wise_shift": True,
    "use_modal_wise_scale": True,
    "shift": [[0.1, -1.0, 2.0], [0.4, 1.0, -2.0]],
    "scale": [[1.3, 1.2, 1.1], [0.9, 0.8, 0.7]],
}
CASES |= {
    "modal_parity": {**MODAL, "lmax": 1},
    "modal_linear": {**MODAL, "is_parity": False, "self_connection_type": "linear"},
    "modal_embedding_alone": {
        **MODAL,
        **dict.fromkeys(["use_modal_self_inter_intro", "use_modal_self_inter_outro", "use_modal_output_block"], False),
        **dict.fromkeys(["use_modal_wise_shift", "use_modal_wise_scale"], False),
        "shift": [0.1, -1.0, 2.0],
        "scale": 1.3,
    },
    "modal_readout_as_network": {**MODAL, **CASES["readout_as_network"], "use_modal_output_block": False, "lmax": 1},
}
SHIPPED = {
    "SevenNet-0": (sevenn_const.SEVENNET_0_11Jul2024, None),
    "SevenNet-l3i5": (sevenn_const.SEVENNET_l3i5, None),
    "SevenNet-MF-0, PBE": (sevenn_const.SEVENNET_MF_0, "PBE"),
    "SevenNet-MF-0, R2SCAN": (sevenn_const.SEVENNET_MF_0, "R2SCAN"),
}


def build(case: str, dtype: torch.dtype = torch.float64):
    """A model of SevenNet with random weights, its constants native to ``dtype``."""
    torch.manual_seed(0)
    with default_dtype(dtype):
        model = build_E3_equivariant_model({**COMMON, **CASES[case]}).to(dtype)
    with torch.no_grad():
        model.edge_embedding.basis_function.coeffs *= 1.1  # as if trained
    return model


def modality(case: str) -> str | None:
    return "SCAN" if case.startswith("modal") else None


def graph(atoms, source: SevenNet):
    return collate([graph_from_atoms(each, source.type_names, source.r_max) for each in atoms])


def errors(found, expected, periodic: bool) -> dict[str, float]:
    names = (keys.TOTAL_ENERGY, keys.FORCES, *([keys.STRESS] if periodic else []))
    return {name: relative_error(found[name], expected[name]) for name in names}


@pytest.mark.parametrize("case", CASES)
def test_the_description_is_exact(case):
    """Molecules and crystals of some hundred atoms and edges, in float64."""
    source = SevenNet(build(case), modality(case))
    program = source.program()
    for atoms in (molecules(), crystals()):
        data = graph(atoms, source)
        found = errors(evaluate(program, data), source.evaluate(data), bool(atoms[0].pbc.any()))
        assert max(found.values()) < 1e-12, found


@pytest.mark.parametrize("case", CASES)
def test_the_engine_equals_sevennet(case):
    model = build(case)
    source = SevenNet(model, modality(case))
    data = graph(crystals(), source)
    expected = source.evaluate(data)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        potential = compile(model, modal=modality(case), dtype=dtype, radial="exact", verify=False)
        found = errors(potential.evaluate(data), expected, periodic=True)
        assert max(found.values()) < tolerance, (dtype, found)


def test_tables_have_a_knot_where_the_cutoff_function_has_a_kink():
    """So that they converge as those of a smooth one."""
    model = build("xplor")
    source = SevenNet(model)
    data = graph(crystals(), source)
    potential = compile(model, verify=False)
    assert max(potential.report["table_errors"]) < 1e-8
    found = errors(potential.evaluate(data), source.evaluate(data), periodic=True)
    assert max(found.values()) < 1e-7, found


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models(name):
    """Energy and stress relative to the largest, forces to the largest; all structures in one batch."""
    path, modal = SHIPPED[name]
    source = load(path, modal=modal)
    atoms = structures()
    data = graph(atoms, source)
    expected, found = source.evaluate(data), compile(path, modal=modal, verify=False).evaluate(data)
    crystals = torch.tensor([bool(each.pbc.any()) for each in atoms])
    assert len(atoms) >= 30
    assert len({symbol for each in atoms for symbol in each.symbols}) >= 60
    assert relative_error(found[keys.TOTAL_ENERGY], expected[keys.TOTAL_ENERGY]) < 1e-5
    assert relative_error(found[keys.FORCES], expected[keys.FORCES]) < 1e-5
    assert relative_error(found[keys.STRESS][crystals], expected[keys.STRESS][crystals]) < 1e-5


@pytest.mark.parametrize("name", ["SevenNet-0", "SevenNet-MF-0, R2SCAN"])
def test_the_calculators_agree(name):
    """Signs, units and order of the stress are ASE's, and a modality is the one that SevenNet takes by that name."""
    from sevenn.calculator import SevenNetCalculator

    atoms = structures()[40]
    path, modal = SHIPPED[name]
    potential = compile(path, modal=modal)
    assert potential.report.get("modal") == modal
    values = []
    for calculator in (SevenNetCalculator(path, device="cpu", modal=modal), potential.calculator()):
        atoms.calc = calculator
        values.append([atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()])
    for theirs, ours in zip(*values, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_a_model_without_neighbours():
    """An atom alone."""
    source = SevenNet(build("xplor"))
    atom = [molecules()[0][:1]]
    data = graph(atom, source)
    found = compile(build("xplor"), verify=False).evaluate(data)
    assert relative_error(found[keys.TOTAL_ENERGY], source.evaluate(data)[keys.TOTAL_ENERGY]) < 1e-12
    assert not found[keys.FORCES].any()


def test_the_model_is_left_as_it_was():
    model = build("parity_l1_nequip").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compile(model)
    assert model.training
    assert model.is_batch_data
    assert not model.onehot_idx_to_onehot._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_bias_in_linear": True}, "use_bias_in_linear"),
        ({"_normalize_sph": False}, "grow with the distance"),
        ({"readout_as_fcn": True, "readout_fcn_hidden_neurons": [3], "readout_fcn_activation": "elu"}, "elu"),
        ({"irreps_manual": ["4x0e+4x1o", "4x0e+4x1o", "4x0e+4x1o", "4x0e"]}, "starts with features"),
        ({"irreps_manual": ["4x0e", "4x1o+4x0e", "4x1o+4x0e", "4x0e"]}, "not in the order of its gates"),
        (MODAL, r"multi-modal \(PBE, SCAN\); say which"),
    ],
)
def test_models_that_cannot_be_compiled_say_why(settings, message):
    with pytest.raises(InputError, match=message):
        compile(build_E3_equivariant_model({**COMMON, **settings}), verify=False)


def test_modalities_that_are_not_there():
    with pytest.raises(InputError, match=r"modal='SKAN' is none of the model's modalities, PBE, SCAN; .*'SCAN'"):
        compile(build("modal_parity"), modal="SKAN")
    with pytest.raises(InputError, match="modal='PBE': the model is not multi-modal"):
        compile(build("parity_l1_linear"), modal="PBE")
    with pytest.raises(InputError, match="modal='PBE': the model is not multi-modal"):
        compile(build_model(config("preset_S")), modal="PBE")


def test_parts_that_are_not_known():
    model = build("parity_l1_linear")
    model._modules["1_attention"] = torch.nn.Identity()
    with pytest.raises(InputError, match=r"1_attention.*Identity"):
        compile(model)
    del model._modules["1_attention"]
    model._modules["1_convolution"].convolution = torch.nn.Identity()
    with pytest.raises(InputError, match="enable_cueq"):
        compile(model)


def test_a_checkpoint_with_objects_needs_trust(tmp_path):
    checkpoint = torch.load(SHIPPED["SevenNet-0"][0], map_location="cpu", weights_only=False)
    checkpoint["config"]["when"] = datetime.date(2024, 7, 11)
    torch.save(checkpoint, tmp_path / "model.pth")
    with pytest.raises(InputError, match="trust=True"):
        compile(tmp_path / "model.pth")
    assert load(tmp_path / "model.pth", trust=True).r_max == 5.0


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "not a readable checkpoint"), ({"epoch": 3}, "not a checkpoint of SevenNet")]
)
def test_other_files(content, message, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=message):
        compile(path)
