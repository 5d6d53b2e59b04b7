"""Several graphs as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from nequip_fast.data import keys
from nequip_fast.errors import InputError

_PER_STRUCTURE = (keys.CELL, keys.PBC, keys.NUM_ATOMS)
_PER_ATOM = (keys.POSITIONS, keys.ATOM_TYPES, keys.ATOMIC_NUMBERS)
_LABEL_SHAPES = {keys.TOTAL_ENERGY: (1, 1), keys.FORCES: (None, 3), keys.STRESS: (1, 3, 3)}  # None: one row per atom


def collate(graphs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One graph of B structures: atoms and edges concatenated, edge indices offset, sorted by receiver if each was.

    A label that only some structures carry is NaN for the others; one that none carries is absent.

    Args:
        graphs: results of :func:`graph_from_atoms`, each one structure.

    Returns:
        Graph dictionary with cell [B, 3, 3], pbc [B, 3], num_atoms [B], batch [N].

    Raises:
        InputError: no graphs at all.
    """
    if not graphs:
        raise InputError("a batch needs at least one structure; got none")
    counts = torch.cat([graph[keys.NUM_ATOMS] for graph in graphs])
    offsets = (counts.cumsum(0) - counts).tolist()
    batch = {name: torch.cat([graph[name] for graph in graphs]) for name in (*_PER_ATOM, *_PER_STRUCTURE)}
    batch[keys.BATCH] = torch.repeat_interleave(torch.arange(len(graphs)), counts)
    edges = [graph[keys.EDGE_INDEX] + offset for graph, offset in zip(graphs, offsets, strict=True)]
    batch[keys.EDGE_INDEX] = torch.cat(edges, dim=1)
    batch[keys.EDGE_CELL_SHIFT] = torch.cat([graph[keys.EDGE_CELL_SHIFT] for graph in graphs])
    for name, shape in _LABEL_SHAPES.items():
        if any(name in graph for graph in graphs):
            batch[name] = torch.cat([graph.get(name, _missing(shape, graph)) for graph in graphs])
    return batch


def groups(graphs: Iterable[dict[str, Tensor]], atoms_per_batch: int) -> Iterator[list[dict[str, Tensor]]]:
    """Graphs in groups that are closed when they hold ``atoms_per_batch`` atoms."""
    group: list[dict[str, Tensor]] = []
    atoms = 0
    for graph in graphs:
        group.append(graph)
        atoms += len(graph[keys.POSITIONS])
        if atoms >= atoms_per_batch:
            yield group
            group, atoms = [], 0
    if group:
        yield group


def _missing(shape: tuple[int | None, ...], graph: dict[str, Tensor]) -> Tensor:
    rows = int(graph[keys.NUM_ATOMS])
    return torch.full([rows if size is None else size for size in shape], torch.nan, dtype=torch.float64)
