"""Small structures, the settings under test, and nequip itself as the oracle."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import ase
import ase.build
import numpy as np
import torch
from ase.neighborlist import neighbor_list
from torch import Tensor

from nequip_fast.dtypes import default_dtype
from nequip_fast.model import GraphModel, build_model, load_nequip_state_dict

TYPES = ["C", "H", "O"]
R_MAX = 4.0
COMMON = {
    "seed": 5,
    "type_names": TYPES,
    "r_max": R_MAX,
    "avg_num_neighbors": 6.7,
    "per_type_energy_scales": 1.3,
    "per_type_energy_shifts": {"C": -1.0, "H": 2.0, "O": 0.3},
}
SMALL = {"num_layers": 2, "l_max": 2, "num_features": 8, "radial_mlp_width": 16}
# four layers, so that odd scalars appear (in the third) and are used (in the fourth)
DEEP = {**SMALL, "num_layers": 4, "parity": True}
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "chemical_species": TYPES, "units": "metal"}

# name -> settings; each is compared with nequip on molecules and on crystals, in both precisions
CASES: dict[str, dict[str, Any]] = {
    "preset_S": {"builder": "PresetNequIPGNNModel", "preset": "S"},
    "preset_M": {"builder": "PresetNequIPGNNModel", "preset": "M"},
    "preset_L": {"builder": "PresetNequIPGNNModel", "preset": "L"},
    "parity": DEEP,
    "no_parity": {**SMALL, "parity": False},
    "odd_channels": {**DEEP, "num_features": [7, 13, 5], "radial_mlp_width": 11, "radial_mlp_depth": 2},
    "scalars_only": {**SMALL, "l_max": 0},
    "per_edge_type_cutoff": {**SMALL, "per_edge_type_cutoff": {"H": 2.5, "C": {"H": 3.1, "O": 3.7}}},
    "zbl": {**SMALL, "parity": False, "pair_potential": {**ZBL, "polynomial_cutoff_p": 8}},
    "zbl_real_units_and_cutoffs": {
        **SMALL,
        "pair_potential": {**ZBL, "units": "real"},
        "per_edge_type_cutoff": {"O": 3.0},
    },
    "bessel": {**SMALL, "bessel_trainable": True, "num_bessels": 5, "polynomial_cutoff_p": 4},
    "neighbours_by_type": {**SMALL, "avg_num_neighbors": {"C": 5.0, "H": 3.0, "O": 9.0}},
    "resnet": {**DEEP, "convnet_resnet": True, "parity": False},
    "norm": {**DEEP, "convnet_nonlinearity_type": "norm", "convnet_nonlinearity_scalars": {"e": "ssp", "o": "tanh"}},
    "other_activations": {
        **DEEP,
        "convnet_nonlinearity_scalars": {"e": "ssp", "o": "abs"},
        "convnet_nonlinearity_gates": {"e": "tanh", "o": "abs"},
    },
    "readout": {
        **SMALL,
        "readout_mlp_hidden_layers_depth": 2,
        "readout_mlp_hidden_layers_width": 9,
        "readout_mlp_nonlinearity": "mish",
    },
    "deep_linear_readout": {
        **SMALL,
        "readout_mlp_hidden_layers_depth": 2,
        "readout_mlp_nonlinearity": None,
    },
    "learnable_shift": {**SMALL, "learnable_shift": True, "type_embed_num_features": 2},
    "no_self_connection": {**SMALL, "convnet_sc": False},
    "trainable_scale_shift": {
        **SMALL,
        "per_type_energy_scales_trainable": True,
        "per_type_energy_shifts_trainable": True,
    },
    "no_scale_shift": {**SMALL, "per_type_energy_scales": None, "per_type_energy_shifts": None},
    "graph_field": {
        **SMALL,
        "categorical_graph_field_embed": [{"field": "charge", "num_features": 3, "min": -1, "max": 2}],
    },
    "full": {
        "builder": "FullNequIPGNNModel",
        "irreps_edge_sh": "0e + 1o + 2e",
        "type_embed_num_features": 6,
        "feature_irreps_hidden": ["4x0o + 3x1o + 5x2e", "6x0e + 2x1e + 2x0e + 3x1o + 1x1o", "4x0o + 3x1o", "6x0e"],
        "radial_mlp_depth": [1, 2, 0, 1],
        "radial_mlp_width": [8, 12, 10, 9],
    },
}


def config(case: str | Mapping[str, Any], dtype: str = "float64") -> dict[str, Any]:
    """The complete configuration of a case, by name or as settings."""
    settings = CASES[case] if isinstance(case, str) else case
    return {"builder": "NequIPGNNModel", **COMMON, "model_dtype": dtype, **settings}


@lru_cache(maxsize=4)
def oracle(case: str, dtype: str) -> torch.nn.Module:
    """nequip's own model of a case."""
    return build_oracle(config(case, dtype))


def build_oracle(settings: Mapping[str, Any]) -> torch.nn.Module:
    """nequip's own model of ``settings``, built natively in its precision."""
    from nequip import model as nequip_model

    arguments = dict(settings)
    with nequip_globals():
        return getattr(nequip_model, arguments.pop("builder"))(**arguments).eval()


@contextmanager
def nequip_globals() -> Iterator[None]:
    """nequip wants global state of its own; put torch's default precision back afterwards."""
    from nequip.utils.global_state import set_global_state

    with warnings.catch_warnings(), default_dtype(torch.get_default_dtype()):
        warnings.simplefilter("ignore")
        set_global_state()
        yield


def pair(case: str, dtype: str = "float64") -> tuple[torch.nn.Module, GraphModel]:
    """nequip's model and ours, other seed, with nequip's weights loaded."""
    theirs = oracle(case, dtype)
    ours = build_model({**config(case, dtype), "seed": 99})
    load_nequip_state_dict(ours, theirs.state_dict())
    return theirs, ours.eval()


def graph(atoms: ase.Atoms, type_names: Sequence[str] = TYPES, r_max: float = R_MAX) -> dict[str, Tensor]:
    """One structure as a graph dictionary."""
    i, j, shift = neighbor_list("ijS", atoms, r_max)
    symbols = atoms.get_chemical_symbols()
    data = {
        "pos": torch.tensor(atoms.positions),
        "atom_types": torch.tensor([type_names.index(symbol) for symbol in symbols], dtype=torch.int64),
        "edge_index": torch.tensor(np.stack([i, j]), dtype=torch.int64),
        "num_atoms": torch.tensor([len(atoms)]),
    }
    if atoms.pbc.any():
        data["cell"] = torch.tensor(atoms.cell.array).unsqueeze(0)
        data["edge_cell_shift"] = torch.tensor(shift, dtype=torch.float64)
    return data


def batch(graphs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Several graphs as one."""
    counts = [data["pos"].shape[0] for data in graphs]
    starts = np.cumsum([0, *counts[:-1]])
    merged = {name: torch.cat([data[name] for data in graphs]) for name in graphs[0] if name != "edge_index"}
    merged["edge_index"] = torch.cat(
        [data["edge_index"] + int(start) for data, start in zip(graphs, starts, strict=True)], dim=1
    )
    merged["batch"] = torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor(counts))
    return merged


def molecules() -> list[ase.Atoms]:
    """Three small molecules, shaken; the second has one atom."""
    atoms = [ase.build.molecule("CH3CH2OH"), ase.Atoms("O"), ase.build.molecule("H2CO")]
    for k, molecule in enumerate(atoms):
        molecule.rattle(0.05, seed=k)
    return atoms


def crystals() -> list[ase.Atoms]:
    """Two triclinic cells, shaken, shorter than the cutoff in every direction."""
    first = ase.build.bulk("C", "diamond", a=3.6)
    first.symbols[1] = "O"
    second = ase.build.bulk("CO", "rocksalt", a=4.3).repeat((2, 1, 1))
    second.symbols[1] = "H"
    for k, atoms in enumerate((first, second)):
        atoms.rattle(0.08, seed=k)
        atoms.set_cell(atoms.cell.array + 0.1 * np.random.default_rng(k).normal(size=(3, 3)), scale_atoms=True)
    return [first, second]


def inputs(kind: str) -> dict[str, Tensor]:
    """A batch of ``molecules`` or ``crystals``, with a total charge."""
    structures = molecules() if kind == "molecules" else crystals()
    data = batch([graph(atoms) for atoms in structures])
    data["charge"] = torch.arange(len(structures)).unsqueeze(1) - 1
    return data


def call(model: torch.nn.Module, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model on a copy of ``data``; nequip counts atoms under ``num_atoms`` as we do."""
    return model({name: value.clone() for name, value in data.items()})


def relative_error(value: Tensor, reference: Tensor) -> float:
    """max |Δ| / max |reference|"""
    assert value.shape == reference.shape
    return float((value - reference).detach().abs().max() / reference.detach().abs().max())
