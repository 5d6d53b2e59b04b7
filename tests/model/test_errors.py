"""Wrong input ends in one InputError that says what is wrong."""

from __future__ import annotations

from typing import Any

import ase
import pytest
import torch

from nequip_fast.errors import InputError
from nequip_fast.model import GraphModel, NequIPGNNModel, PresetNequIPGNNModel, build_model
from tests.model.model_cases import TYPES, config, graph, inputs, molecules


@pytest.fixture(scope="module")
def model() -> GraphModel:
    return build_model(config("graph_field")).eval()


def _changed(**changes: Any) -> dict[str, torch.Tensor]:
    data = {**inputs("crystals"), **changes}
    return {name: value for name, value in data.items() if value is not None}


BAD_GRAPHS = {
    "missing 'pos'": ({"pos": None}, "no 'pos'"),
    "missing types": ({"atom_types": None}, "no 'atom_types'"),
    "missing shifts": ({"edge_cell_shift": None}, "no 'edge_cell_shift'"),
    "missing field": ({"charge": None}, "no 'charge'"),
    "missing batch": ({"batch": None}, "no 'batch'"),
    "field out of range": ({"charge": torch.tensor([[0], [7]])}, "between -1 and 2"),
    "unknown type": ({"atom_types": torch.tensor([0, 1, 3, 0, 0, 0])}, r"atom type 3 .* \(C, H, O\)"),
    "negative type": ({"atom_types": torch.tensor([0, 1, -1, 0, 0, 0])}, "atom type -1"),
    "too few types": ({"atom_types": torch.tensor([0, 1])}, "6 positions but 2 atom types"),
    "float32 positions": ({"pos": torch.zeros(6, 3)}, "'pos' must be torch.float64"),
    "float32 cell": ({"cell": torch.eye(3).repeat(2, 1, 1)}, "'cell' must be torch.float64"),
    "flat positions": ({"pos": torch.zeros(18, dtype=torch.float64)}, r"'pos' must be \[N, 3\], not \[18\]"),
    "flat edges": ({"edge_index": torch.zeros(8, dtype=torch.int64)}, r"'edge_index' must be \[2, E\], not \[8\]"),
    "cell of NaN": ({"cell": torch.full((2, 3, 3), torch.nan, dtype=torch.float64)}, "no finite length"),
    "another device": ({"pos": torch.zeros(6, 3, dtype=torch.float64, device="meta")}, "but the model on cpu"),
    "int32 edges": ({"edge_index": torch.zeros(2, 4, dtype=torch.int32)}, "'edge_index' must be torch.int64"),
}


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_bad_graph(model: GraphModel, name: str) -> None:
    changes, message = BAD_GRAPHS[name]
    with pytest.raises(InputError, match=message):
        model(_changed(**changes))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_position_that_is_not_finite(model: GraphModel, value: float) -> None:
    data = inputs("crystals")
    data["pos"][4, 1] = value
    with pytest.raises(InputError, match="atom 4 is not finite"):
        model(data)


def test_two_atoms_at_the_same_place() -> None:
    data = graph(molecules()[2])
    data["pos"][1] = data["pos"][0]
    with pytest.raises(InputError, match="same place"):
        build_model(config("parity"))(data)


def test_edge_to_an_atom_that_is_not_there() -> None:
    data = graph(ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))
    data["edge_index"][1, 0] = 2
    with pytest.raises((InputError, IndexError)):
        build_model(config("parity"))(data)


def test_inference_mode_is_refused() -> None:
    with torch.inference_mode(), pytest.raises(InputError, match="no_grad"):
        build_model(config("parity"))(inputs("molecules"))


BAD_SETTINGS = {
    "misspelt": ({"num_layer": 3}, "no argument 'num_layer'; did you mean 'num_layers'"),
    "derived": ({"irreps_edge_sh": 2}, "no argument 'irreps_edge_sh'"),
    "dtype": ({"model_dtype": "float16"}, "model_dtype must be"),
    "compile": ({"compile_mode": "compile"}, "compile_mode='compile' is not supported"),
    "type names": ({"type_names": ["C", "H-1", "O"]}, "letters and digits"),
    "twice the same type": ({"type_names": ["C", "C", "O"]}, "distinct"),
    "cutoff": ({"r_max": 0.0}, "must be positive"),
    "layers": ({"num_layers": 0}, "at least one layer"),
    "degree": ({"l_max": -1}, "must not be negative"),
    "too high a degree": ({"l_max": 12, "num_features": 4}, "from l = 0 to 11"),
    "no radial functions": ({"num_bessels": 0}, "each needs at least one"),
    "channels": ({"num_features": [4, 4]}, "l_max \\+ 1 = 3 entries"),
    "no channels": ({"num_features": [4, 0, 4]}, "at least one channel"),
    "no neighbours": ({"avg_num_neighbors": None}, "avg_num_neighbors is missing"),
    "zero neighbours": ({"avg_num_neighbors": 0.0}, "must be positive"),
    "neighbours of a missing type": ({"avg_num_neighbors": {"C": 3.0, "H": 2.0}}, "no value for O"),
    "shift of an unknown type": ({"per_type_energy_shifts": {"Hh": 1.0}}, "'Hh', .* did you mean 'H'"),
    "list of shifts": ({"per_type_energy_shifts": [1.0, 2.0, 3.0]}, "dict by type name"),
    "cutoff of an unknown type": ({"per_edge_type_cutoff": {"N": 2.0}}, "'N', which is not in type_names"),
    "cutoff beyond r_max": ({"per_edge_type_cutoff": {"C": 9.0}}, "at most r_max"),
    "envelope": ({"polynomial_cutoff_p": 1}, "at least 2"),
    "nonlinearity type": ({"convnet_nonlinearity_type": "gated"}, "gate or norm"),
    "nonlinearity": ({"convnet_nonlinearity_gates": {"e": "silo", "o": "tanh"}}, "did you mean 'silu'"),
    "odd nonlinearity": ({"convnet_nonlinearity_scalars": {"e": "silu", "o": "silu"}}, "neither even nor odd"),
    "parities": ({"convnet_nonlinearity_scalars": {"e": "silu"}}, "exactly the keys"),
    "learnable shift": ({"learnable_shift": True, "convnet_sc": False}, "needs convnet_sc or convnet_resnet"),
    "pair potential": ({"pair_potential": {"_target_": "nequip.nn.pair_potential.LennardJones"}}, "only ZBL"),
    "zbl species": ({"pair_potential": {"_target_": "ZBL", "chemical_species": TYPES[:2]}}, "2 entries for 3"),
    "zbl symbol": ({"pair_potential": {"_target_": "ZBL", "chemical_species": ["C", "H", "Oo"]}}, "'Oo' is no"),
    "zbl units": ({"pair_potential": {"_target_": "ZBL", "chemical_species": TYPES, "units": "SI"}}, "metal or real"),
    "zbl argument": ({"pair_potential": {"_target_": "ZBL", "unit": "metal"}}, "no argument 'unit'; did you mean"),
    "graph field": ({"categorical_graph_field_embed": [{"field": "charge"}]}, "lacks num_features, min, max"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_setting(name: str) -> None:
    changes, message = BAD_SETTINGS[name]
    with pytest.raises(InputError, match=message):
        build_model({**config("parity"), **changes})


def test_missing_setting() -> None:
    with pytest.raises(InputError, match="NequIPGNNModel needs seed, r_max; add them"):
        NequIPGNNModel(model_dtype="float32", type_names=TYPES, avg_num_neighbors=3.0)


def test_unknown_builder_and_preset() -> None:
    with pytest.raises(InputError, match="did you mean 'NequIPGNNModel'"):
        build_model({"builder": "NequipGNNModel"})
    with pytest.raises(InputError, match="preset must be one of S, M, L, XL"):
        PresetNequIPGNNModel(preset="huge", seed=1)
