"""From a file of structures to batches of graphs: reading, splitting, statistics, and the order of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nequip_fast import data
from nequip_fast.data import keys
from nequip_fast.errors import InputError
from nequip_fast.train.config import DataConfig, TrainConfig

Graph = dict[str, Tensor]
LABELS = (keys.TOTAL_ENERGY, keys.FORCES, keys.STRESS)


@dataclass
class Batch:
    """Graphs to predict, their reference values, and how many numbers each mean of the loss runs over."""

    inputs: Graph
    reference: Graph
    counts: dict[str, int]

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        if device.type == "cpu":
            return self
        inputs = {key: tensor.to(device, non_blocking=True) for key, tensor in self.inputs.items()}
        reference = {key: tensor.to(device, non_blocking=True) for key, tensor in self.reference.items()}
        return Batch(inputs, reference, self.counts)


def take_labels(graph: Graph) -> Graph:
    """Remove the labels from a collated graph; returns them with what errors per atom and per element need."""
    labels = {key: graph.pop(key) for key in LABELS if key in graph}
    return labels | {key: graph[key] for key in (keys.NUM_ATOMS, keys.ATOM_TYPES, keys.BATCH)}


class GraphSet:
    """Graphs with labels, all in memory, whose neighbour lists are built once."""

    def __init__(self, graphs: Sequence[Graph]):
        self.graphs = list(graphs)
        self._counts = [
            {
                "energy": 1,
                "forces": graph[keys.POSITIONS].numel(),
                "stress": int((~torch.isnan(graph[keys.STRESS])).sum()) if keys.STRESS in graph else 0,
            }
            for graph in self.graphs
        ]
        self._periodic = any(bool(graph[keys.PBC].any()) for graph in self.graphs)

    def __len__(self) -> int:
        return len(self.graphs)

    def counts(self, indices: Sequence[int]) -> dict[str, int]:
        """How many energies, force components and known stress components these graphs hold (at least 1)."""
        return {name: max(1, sum(self._counts[i][name] for i in indices)) for name in ("energy", "forces", "stress")}

    def batch(self, indices: Sequence[int], counts: dict[str, int] | None = None) -> Batch:
        """Collate these graphs."""
        inputs = data.collate([self.graphs[i] for i in indices])
        reference = take_labels(inputs)
        if not self._periodic:  # saves the model the cell shifts and the stress
            inputs.pop(keys.CELL, None)
            inputs.pop(keys.EDGE_CELL_SHIFT, None)
        return Batch(inputs, reference, counts or self.counts(indices))

    def batches(self, size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The whole set in order; ``counts`` are those of the whole set, so that the losses of all batches add up."""
        counts = self.counts(range(len(self)))
        mine = range(rank, len(self), world)
        for start in range(0, len(mine), size):
            yield self.batch(mine[start : start + size], counts)

    def epoch(self, seed: int, epoch: int, size: int, skip: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Batches of one epoch in an order that depends on ``(seed, epoch)`` alone, without the first ``skip``."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self)).tolist()
        for number in range(skip, self.num_batches(size, world)):
            together = order[number * size : (number + 1) * size]
            yield self.batch(together[rank::world], self.counts(together))

    def num_batches(self, size: int, world: int = 1) -> int:
        """Batches per epoch. A last batch too small to give every process a structure is left out."""
        full, rest = divmod(len(self), size)
        return full + (rest >= world)


@dataclass
class Datasets:
    """The parts of the data, and what the model is told about them."""

    train: GraphSet
    val: GraphSet
    test: GraphSet
    type_names: list[str]
    model_arguments: dict[str, Any]  # avg_num_neighbors, per_type_energy_shifts, per_type_energy_scales
    summary: str


def load_datasets(config: TrainConfig) -> Datasets:
    """Read, split, and build all graphs.

    Raises:
        InputError: no such file, no structures, too few for the split, an element that is not in type_names.
    """
    structures = _read(config.data.file, config.data)
    test_structures = _read(config.data.test_file, config.data) if config.data.test_file else None
    parts = _split(structures, config, with_test=test_structures is None)
    if test_structures is not None:
        parts[2] = test_structures
    found = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()}, key=_atomic_number)
    type_names = list(config.data.type_names or found)
    names = (config.data.file, config.data.file, config.data.test_file or config.data.file)
    sets = [GraphSet(_graphs(part, type_names, config, name)) for part, name in zip(parts, names, strict=True)]
    if config.training.loss.stress > 0:
        _require_stress(sets, config)
    statistics = data.statistics(
        sets[0].graphs, type_names, config.model.r_max, isolated_atom_energies=config.data.isolated_atom_energies
    )
    arguments = {
        "avg_num_neighbors": statistics.avg_num_neighbors,
        "per_type_energy_shifts": statistics.per_type_energy_shifts,
        "per_type_energy_scales": statistics.forces_rms,
    }
    sizes = " + ".join(f"{len(part)} {name}" for part, name in zip(sets, ("train", "validation", "test"), strict=True))
    return Datasets(
        sets[0], sets[1], sets[2], type_names, arguments, f"{sizes} structures; elements {', '.join(type_names)}"
    )


def _read(path: str, config: DataConfig) -> list[Any]:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file (data.file and data.test_file are relative to the current folder)")
    return data.read_structures(
        path, energy_key=config.energy_key, forces_key=config.forces_key, stress_key=config.stress_key
    )


def _graphs(structures: list[Any], type_names: list[str], config: TrainConfig, name: str) -> list[Graph]:
    cutoffs = config.model.per_edge_type_cutoff
    try:
        dataset = data.AtomsDataset(structures, type_names, config.model.r_max, per_edge_type_cutoff=cutoffs)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return dataset.graphs


def _split(structures: list[Any], config: TrainConfig, with_test: bool) -> list[list[Any]]:
    total = len(structures)
    tenth = max(1, round(0.1 * total))
    n_val = tenth if config.data.n_val is None else config.data.n_val
    n_test = (tenth if config.data.n_test is None else config.data.n_test) if with_test else 0
    n_train = total - n_val - n_test if config.data.n_train is None else config.data.n_train
    if n_train < 1 or n_train + n_val + n_test > total:
        raise InputError(
            f"{config.data.file}: has {total} structures, too few for {max(n_train, 1)} to train, {n_val} to validate "
            f"and {n_test} to test; lower data.n_train, data.n_val or data.n_test"
        )
    split = data.split_indices(total, n_train, n_val, n_test, config.seed)
    return [[structures[int(i)] for i in part] for part in split]


def _require_stress(sets: list[GraphSet], config: TrainConfig) -> None:
    """A loss with stress needs stress labels; structures without count for nothing (NaN)."""
    if not any(keys.STRESS in graph for graph in sets[0].graphs):
        raise InputError(
            f"{config.data.file}: no stress under {config.data.stress_key!r}, but training.loss.stress is above zero; "
            "set data.stress_key or training.loss.stress=0"
        )
    for part in sets:
        for graph in part.graphs:
            if keys.CELL not in graph or not float(torch.linalg.det(graph[keys.CELL]).abs().min()) > 0:
                raise InputError(
                    f"{config.data.file}: holds structures without a cell, which have no stress; set "
                    "training.loss.stress=0 or train on the periodic structures alone"
                )
            graph.setdefault(keys.STRESS, torch.full((1, 3, 3), torch.nan, dtype=torch.float64))


def _atomic_number(symbol: str) -> int:
    from ase.data import atomic_numbers

    return int(atomic_numbers[symbol])
