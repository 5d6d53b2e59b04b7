"""Errors of a trained model on reference structures, beside the trivial predictor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nequip_fast import data
from nequip_fast.data import keys
from nequip_fast.errors import InputError
from nequip_fast.train.dataset import LABELS, take_labels
from nequip_fast.train.metrics import ErrorSums, trivial_prediction

Graph = dict[str, Tensor]


@dataclass
class Evaluation:
    """Errors, and the numbers a parity plot shows. Energies in eV/atom, forces in eV/Å."""

    errors: dict[str, float]
    trivial: dict[str, float]
    num_structures: int
    num_atoms: int
    energy: tuple[np.ndarray, np.ndarray] = field(repr=False)  # reference, predicted [B]
    forces: tuple[np.ndarray, np.ndarray] = field(repr=False)  # reference, predicted [N, 3]
    elements: np.ndarray = field(repr=False)  # [N]

    def to_json(self) -> dict[str, Any]:
        """Errors in eV/atom, eV/Å and eV/Å³, without the single predictions."""
        return {
            "units": {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"},
            "structures": self.num_structures,
            "atoms": self.num_atoms,
            "model": self.errors,
            "trivial": self.trivial,
        }


def evaluate_structures(
    model: Any,
    structures: Sequence[Any],
    device: torch.device | str = "cpu",
    atoms_per_batch: int = 2000,
    where: str = "",
) -> Evaluation:
    """Compare a model with labelled ``ase.Atoms``, batch by batch; graphs are built as they are needed.

    Args:
        model: GraphModel.
        structures: with energy and forces (and perhaps stress) in their calculator.
        atoms_per_batch: bounds the memory: a batch is closed when it holds this many atoms.
        where: file name for messages.

    Raises:
        InputError: no structures, or an element that the model does not know.
    """
    if not structures:
        raise InputError(f"{where or 'evaluate'}: holds no structures")
    graphs = (
        _graph(model, atoms, f"{where or 'evaluate'}: structure {number}") for number, atoms in enumerate(structures)
    )
    return evaluate_graphs(model, graphs, device, atoms_per_batch)


def evaluate_graphs(
    model: Any,
    graphs: Iterator[Graph] | Sequence[Graph],
    device: torch.device | str = "cpu",
    atoms_per_batch: int = 2000,
) -> Evaluation:
    """As :func:`evaluate_structures`, for graphs that exist already."""
    device = torch.device(device)
    model = model.to(device).eval()
    sums = ErrorSums(model.type_names, device)
    kept: list[tuple[Graph, Graph]] = []  # reference and prediction, without the graphs
    for group in data.groups(graphs, atoms_per_batch):
        inputs = data.collate(group)
        reference = take_labels(inputs)
        moved = {key: tensor.to(device) for key, tensor in inputs.items()}
        output = model(moved)
        prediction = {key: output[key].detach() for key in LABELS if key in output}
        sums.add(prediction, {key: tensor.to(device) for key, tensor in reference.items()})
        kept.append((reference, {key: tensor.cpu() for key, tensor in prediction.items()}))
    reference = _joined([one for one, _ in kept])
    prediction = _joined([other for _, other in kept])
    trivial = ErrorSums(model.type_names)
    trivial.add(trivial_prediction(reference, len(model.type_names)), reference)
    per_atom = reference[keys.NUM_ATOMS].double()
    return Evaluation(
        errors=sums.result(),
        trivial=trivial.result(),
        num_structures=len(per_atom),
        num_atoms=int(per_atom.sum()),
        energy=(
            (reference[keys.TOTAL_ENERGY].view(-1) / per_atom).numpy(),
            (prediction[keys.TOTAL_ENERGY].view(-1) / per_atom).numpy(),
        ),
        forces=(reference[keys.FORCES].numpy(), prediction[keys.FORCES].double().numpy()),
        elements=np.array(model.type_names)[reference[keys.ATOM_TYPES].view(-1).numpy()],
    )


def plot_parity(result: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write the parity plot."""
    from nequip_fast.train.plots import parity_plot

    parity_plot(result.energy, result.forces, result.elements, result.errors, path)


def _graph(model: Any, atoms: Any, where: str) -> Graph:
    cutoffs = model.config.get("per_edge_type_cutoff")
    try:
        return data.graph_from_atoms(atoms, model.type_names, model.r_max, per_edge_type_cutoff=cutoffs)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> Graph:
    """Concatenate batches; structure numbers go on counting, and where a batch has no stress it becomes NaN."""
    joined: Graph = {}
    for key in {key for part in parts for key in part}:
        if key == keys.BATCH:
            counts = [int(part[key].max()) + 1 if len(part[key]) else 0 for part in parts]
            starts = np.cumsum([0, *counts])
            joined[key] = torch.cat([part[key] + int(start) for part, start in zip(parts, starts, strict=False)])
        else:
            missing = torch.full((1, 3, 3), torch.nan, dtype=torch.float64)
            joined[key] = torch.cat(
                [part[key] if key in part else missing.expand(part[keys.TOTAL_ENERGY].shape[0], 3, 3) for part in parts]
            )
    return joined
