"""Trained models as ASE calculators."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nequip_fast.data import VerletList, graph_from_atoms, keys, verlet_list
from nequip_fast.devices import choose_device
from nequip_fast.engine import Potential, Prediction
from nequip_fast.errors import InputError, require
from nequip_fast.model import GraphModel, build_model, load_model

require("ase", "md")  # names the extra to install; the class below needs ase to be defined at all
from ase import Atoms  # noqa: E402
from ase.calculators.calculator import Calculator, all_changes  # noqa: E402
from ase.stress import full_3x3_to_voigt_6_stress  # noqa: E402


class _ForceField(Calculator):
    """Energy, energy of each atom, forces, stress and free energy (equal to the energy), whatever computes them.

    Units are ASE's: eV, Å, eV/Å, eV/Å³; stress in Voigt order, for periodic structures whose cell has a volume.
    The neighbour list is kept between calls and rebuilt when an atom moved more than half of its skin or anything else
    changed; the result depends on the structure alone, bit for bit.
    """

    implemented_properties = ["energy", "energies", "forces", "stress", "free_energy"]  # noqa: RUF012
    neighbours: VerletList

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``self.results``; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        found = self.predict(self.atoms)
        self.results = {
            "energy": found.energy,
            "free_energy": found.energy,
            "energies": found.energies,
            "forces": found.forces,
        }
        if found.stress is not None and self.atoms.pbc.any() and self.atoms.cell.rank == 3:
            self.results["stress"] = full_3x3_to_voigt_6_stress(found.stress)

    def predict(self, atoms: Atoms) -> Prediction:
        """What there is to say of ``atoms``, with the neighbour list that is kept."""
        raise NotImplementedError


class NequIPFastCalculator(_ForceField):
    """A model as an ASE calculator.

    Args:
        model: a ``GraphModel`` (a copy is kept), or the path of a ``model.safetensors``.
        device: ``auto`` (CUDA if there is one), or a torch device.
        dtype: ``float32`` or ``float64`` to run the network in; by default the model's own.
        skin: extra distance of the neighbour list, Å.

    Raises (when calculating):
        InputError: an element the model does not know, positions that are not finite, two atoms at one place.
    """

    def __init__(
        self,
        model: GraphModel | str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
    ) -> None:
        super().__init__()
        self.device = choose_device(device)
        model = copy.deepcopy(model) if isinstance(model, GraphModel) else load_model(model)
        self.model = _with_dtype(model, dtype).to(self.device).eval()
        self.neighbours = VerletList(self.model.r_max, skin)

    def predict(self, atoms: Atoms) -> Prediction:
        output = self.model(self.graph(atoms))
        virial = _numpy(output[keys.VIRIAL])[0] if keys.VIRIAL in output else np.full((3, 3), np.nan)
        return Prediction(
            float(output[keys.TOTAL_ENERGY]),
            _numpy(output[keys.ATOMIC_ENERGY]).reshape(-1),
            _numpy(output[keys.FORCES]),
            virial,
            _numpy(output[keys.STRESS])[0] if keys.STRESS in output else None,
        )

    def graph(self, atoms: Atoms) -> dict[str, torch.Tensor]:
        """The model's input for ``atoms``, on its device."""
        graph = graph_from_atoms(
            atoms,
            self.model.type_names,
            self.model.r_max,
            per_edge_type_cutoff=self.model.config.get("per_edge_type_cutoff"),
            verlet=self.neighbours,
        )
        return {name: tensor.to(self.device) for name, tensor in graph.items()}


class PotentialCalculator(_ForceField):
    """A compiled model as an ASE calculator.

    Args:
        potential: from ``nequip_fast.engine.compile`` or ``load``.
        skin: extra distance of the neighbour list, Å.

    Raises (when calculating):
        InputError: an element the model does not know, positions that are not finite, two atoms at one place.
    """

    def __init__(self, potential: Potential, skin: float = 0.5) -> None:
        super().__init__()
        self.potential = potential
        self.neighbours = verlet_list(potential.r_max, skin, potential.device)

    def predict(self, atoms: Atoms) -> Prediction:
        return self.potential.of_pairs(atoms, self.neighbours)


def _with_dtype(model: GraphModel, dtype: str | torch.dtype | None) -> GraphModel:
    """The model rebuilt with another network precision; the model itself if it has that already."""
    if dtype is None:
        return model
    name = str(dtype).removeprefix("torch.")
    if name not in ("float32", "float64"):
        raise InputError(f"dtype {name!r} is not float32 or float64")
    if getattr(torch, name) == model.model_dtype:
        return model
    rebuilt: Any = build_model({**model.config, "model_dtype": name})
    rebuilt.load_state_dict(model.state_dict())
    return rebuilt


def _numpy(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().cpu().numpy()
