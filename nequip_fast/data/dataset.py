"""Graphs kept in memory for training, and how structures are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from nequip_fast.data.graph import graph_from_atoms
from nequip_fast.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


class AtomsDataset(Dataset[dict[str, Tensor]]):
    """Graphs of structures, neighbour lists built once; batch them with :func:`collate`.

    Args:
        structures, type_names, r_max, per_edge_type_cutoff: as for :func:`graph_from_atoms`.

    Raises:
        InputError: what :func:`graph_from_atoms` raises, with the number of the structure.
    """

    def __init__(
        self,
        structures: Sequence[Atoms],
        type_names: Sequence[str],
        r_max: float,
        *,
        per_edge_type_cutoff: Mapping[str, float | Mapping[str, float]] | None = None,
    ) -> None:
        self.type_names = list(type_names)
        self.r_max = float(r_max)
        self.graphs: list[dict[str, Tensor]] = []
        for number, atoms in enumerate(structures):
            try:
                graph = graph_from_atoms(atoms, type_names, r_max, per_edge_type_cutoff=per_edge_type_cutoff)
            except InputError as error:
                raise InputError(f"structure {number}: {error}") from None
            self.graphs.append(graph)

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.graphs[index]


def split_indices(n: int, n_train: int, n_val: int, n_test: int, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Disjoint random indices below ``n`` for training, validation and test.

    The training and validation parts depend on ``n``, ``seed`` and their own sizes only, not on ``n_test``.

    Raises:
        InputError: a negative size, or fewer than ``n_train + n_val + n_test`` structures.
    """
    sizes = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    for name, size in sizes.items():
        if size < 0:
            raise InputError(f"{name} = {size}; give a number of structures that is zero or positive")
    if sum(sizes.values()) > n:
        asked = " + ".join(f"{name}={size}" for name, size in sizes.items())
        raise InputError(f"{asked} needs {sum(sizes.values())} structures, but there are {n}; lower one of them")
    order = np.random.default_rng(seed).permutation(n).tolist()
    train, val = n_train, n_train + n_val
    return order[:train], order[train:val], order[val : val + n_test]
