"""Trained models as ASE calculators."""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nequip_fast.data import VerletList, collate, graph_from_atoms, groups, keys, verlet_list
from nequip_fast.devices import choose_device
from nequip_fast.engine import Potential, Prediction, load
from nequip_fast.engine.potential import predictions
from nequip_fast.errors import InputError, require
from nequip_fast.model import GraphModel, build_model, load_model

require("ase", "md")  # names the extra to install; the class below needs ase to be defined at all
from ase import Atoms  # noqa: E402
from ase.calculators.calculator import Calculator, all_changes  # noqa: E402
from ase.calculators.singlepoint import SinglePointCalculator  # noqa: E402
from ase.stress import full_3x3_to_voigt_6_stress  # noqa: E402

_PROPERTIES = ["energy", "energies", "forces", "stress", "free_energy"]
_SPREAD = ["energy", "energies", "forces", "stress"]  # what a committee has a deviation of


class _Calculator(Calculator):
    """An ASE calculator that finds everything at once."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``self.results``; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.results = self.found(self.atoms)

    def found(self, atoms: Atoms) -> dict[str, Any]:
        """The results for ``atoms``, by ASE's names."""
        raise NotImplementedError


class _ForceField(_Calculator):
    """Energy, energy of each atom, forces, stress and free energy (equal to the energy), whatever computes them.

    Units are ASE's: eV, Å, eV/Å, eV/Å³; stress in Voigt order, for periodic structures whose cell has a volume.
    The neighbour list is kept between calls and rebuilt when an atom moved more than half of its skin or anything else
    changed; the result depends on the structure alone, bit for bit.

    Attributes:
        type_names: chemical symbols that are known.
        neighbours: the list that is kept.
    """

    implemented_properties = _PROPERTIES
    type_names: Sequence[str]
    neighbours: VerletList

    def found(self, atoms: Atoms) -> dict[str, Any]:
        return _results(atoms, self.predict(atoms))

    def predict(self, atoms: Atoms) -> Prediction:
        """What there is to say of ``atoms``, with the neighbour list that is kept."""
        raise NotImplementedError

    def graph(self, atoms: Atoms, verlet: VerletList | None = None) -> dict[str, torch.Tensor]:
        """What :meth:`evaluate` takes; ``verlet``: a neighbour list to reuse."""
        raise NotImplementedError

    def evaluate(self, graph: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs for the graph of one or several structures."""
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
        self.type_names = self.model.type_names
        self.neighbours = VerletList(self.model.r_max, skin)

    def predict(self, atoms: Atoms) -> Prediction:
        return predictions(self.evaluate(self.graph(atoms, self.neighbours)), [len(atoms)])[0]

    def graph(self, atoms: Atoms, verlet: VerletList | None = None) -> dict[str, torch.Tensor]:
        cutoffs = self.model.config.get("per_edge_type_cutoff")
        return graph_from_atoms(atoms, self.type_names, self.model.r_max, per_edge_type_cutoff=cutoffs, verlet=verlet)

    def evaluate(self, graph: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.model({name: tensor.to(self.device) for name, tensor in graph.items()})


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
        self.type_names = potential.type_names
        self.neighbours = verlet_list(potential.r_max, skin, potential.device)

    def predict(self, atoms: Atoms) -> Prediction:
        return self.potential.of_pairs(atoms, self.neighbours)

    def graph(self, atoms: Atoms, verlet: VerletList | None = None) -> dict[str, torch.Tensor]:
        return graph_from_atoms(atoms, self.type_names, self.potential.r_max, verlet=verlet)

    def evaluate(self, graph: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.potential.evaluate(graph)


class CommitteeCalculator(_Calculator):
    """Several models of the same thing: their mean, and how far they are apart.

    The results are the means over the members, and ``energy_std``, ``energies_std`` [N], ``forces_std`` [N, 3] and
    ``stress_std`` [6] the sample standard deviations (M − 1 in the denominator), of each component by itself. Members
    with equal cutoffs share one neighbour list.

    Args:
        members: two or more, each a ``Potential`` (it stays on its device), a ``GraphModel``, or the path of a
            ``model.safetensors`` or ``*.nqf``.
        device: for models and paths: ``auto`` (CUDA if there is one), or a torch device.
        skin: extra distance of the neighbour lists, Å.

    Attributes:
        predictions: what each member said of the structure calculated last.

    Raises:
        InputError: fewer than two members, or no element that all of them know; when calculating, an element that a
            member does not know, positions that are not finite, two atoms at one place.
    """

    implemented_properties = [*_PROPERTIES, *(f"{name}_std" for name in _SPREAD)]  # noqa: RUF012

    def __init__(
        self,
        members: Iterable[Potential | GraphModel | str | os.PathLike[str]],
        *,
        device: str | torch.device = "auto",
        skin: float = 0.5,
    ) -> None:
        super().__init__()
        self.members = [calculator_of(member, device, skin) for member in members]
        if len(self.members) < 2:
            raise InputError(f"a committee of {len(self.members)} has no deviation; give two models or more")
        if not set.intersection(*(set(member.type_names) for member in self.members)):
            raise InputError("the members of the committee know no element in common; give models of one material")
        self.predictions: list[Prediction] = []
        lists: dict[Hashable, VerletList] = {}
        for member in self.members:
            own = member.neighbours
            member.neighbours = lists.setdefault((type(own), own.cutoff, getattr(own, "device", None)), own)

    def found(self, atoms: Atoms) -> dict[str, Any]:
        """Means and deviations; fills ``self.predictions`` too."""
        for number, member in enumerate(self.members):
            if unknown := sorted(set(atoms.symbols) - set(member.type_names)):
                raise InputError(
                    f"the structure holds {', '.join(unknown)}, but member {number} of the committee (from 0) knows "
                    f"only {', '.join(member.type_names)}; leave it out, or give members that know every element"
                )
        self.predictions = [member.predict(atoms) for member in self.members]
        parts = [_results(atoms, prediction) for prediction in self.predictions]
        values = {name: np.array([part[name] for part in parts]) for name in parts[0]}
        means = {name: _plain(value.mean(0)) for name, value in values.items()}
        spread = {f"{name}_std": _plain(values[name].std(0, ddof=1)) for name in _SPREAD if name in values}
        return means | spread


def calculator_of(
    model: Potential | GraphModel | str | os.PathLike[str], device: str | torch.device = "auto", skin: float = 0.5
) -> NequIPFastCalculator | PotentialCalculator:
    """The calculator of a compiled potential (on the device where it is), of a model, or of a file of either.

    Args:
        model: or the path of a ``model.safetensors`` or ``*.nqf``.
        device: for models and paths: ``auto`` (CUDA if there is one), or a torch device.
        skin: extra distance of the neighbour list, Å.

    Raises:
        InputError: the file cannot be read, or there is no such device.
    """
    if isinstance(model, (str, os.PathLike)) and Path(model).suffix == ".nqf":
        model = load(model).to(device)
    if isinstance(model, Potential):
        return PotentialCalculator(model, skin)
    return NequIPFastCalculator(model, device=device, skin=skin)


def batch_evaluate(
    structures: Iterable[Atoms],
    model: Potential | GraphModel | str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    atoms_per_batch: int = 2000,
) -> list[Atoms]:
    """Energy, forces and stress of many structures, several in one pass.

    Args:
        structures: any; they are not changed.
        model: a ``Potential`` (it stays on its device), a ``GraphModel``, or the path of a ``model.safetensors`` or
            ``*.nqf``.
        device: for models and paths: ``auto`` (CUDA if there is one), or a torch device.
        atoms_per_batch: bounds the memory: a batch is closed when it holds this many atoms.

    Returns:
        Copies of the structures in their order, each with the results in a ``SinglePointCalculator``, so that
        ``ase.io.write`` stores them.

    Raises:
        InputError: an element the model does not know, positions that are not finite, two atoms at one place; the
            message says which structure, counted from 0.
    """
    if atoms_per_batch < 1:
        raise InputError(f"atoms_per_batch={atoms_per_batch}: give a positive number")
    calculator = calculator_of(model, device)
    evaluated = [atoms.copy() for atoms in structures]
    graphs = (_numbered(calculator, number, atoms) for number, atoms in enumerate(evaluated))
    rest = iter(evaluated)
    for group in groups(graphs, atoms_per_batch):
        counts = [len(graph[keys.POSITIONS]) for graph in group]
        for prediction in predictions(calculator.evaluate(collate(group)), counts):
            atoms = next(rest)
            atoms.calc = SinglePointCalculator(atoms, **_results(atoms, prediction))
    return evaluated


def _numbered(calculator: _ForceField, number: int, atoms: Atoms) -> dict[str, torch.Tensor]:
    try:
        return calculator.graph(atoms)
    except InputError as error:
        raise InputError(f"structure {number}: {error}") from None


def _results(atoms: Atoms, found: Prediction) -> dict[str, Any]:
    """By ASE's names; stress in Voigt order, if there is one."""
    results = {
        "energy": found.energy,
        "free_energy": found.energy,
        "energies": found.energies,
        "forces": found.forces,
    }
    if found.stress is not None and atoms.pbc.any() and atoms.cell.rank == 3:
        results["stress"] = full_3x3_to_voigt_6_stress(found.stress)
    return results


def _plain(value: NDArray[np.float64]) -> float | NDArray[np.float64]:
    return value if value.ndim else float(value)


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
