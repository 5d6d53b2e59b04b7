"""Embedding of atom types and of categorical properties of a structure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nequip_fast.errors import InputError
from nequip_fast.ops import backend

_REQUIRED = ("field", "num_features", "min", "max")


class NodeAttributes(NamedTuple):
    """What is known of each atom, and where it helps the few different rows of it: ``values = table[row]``."""

    values: Tensor  # [N, dim]
    table: Tensor | None = None  # [rows, dim]
    row: Tensor | None = None  # [N] int64


class TypeEmbedding(nn.Module):
    """A learned vector per atom type, followed by one per category of each graph field.

    Args:
        num_types: number of atom types.
        num_features: length of the type vector.
        graph_fields: dicts with ``field``, ``num_features``, ``min``, ``max`` and optionally ``init``
            (uniform, zero, near_zero); ``field`` names an integer per structure between ``min`` and ``max``.
    """

    def __init__(
        self,
        num_types: int,
        num_features: int,
        graph_fields: Sequence[Mapping[str, Any]] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.embed_module = nn.Embedding(num_types, num_features, dtype=dtype)
        self.categorical_graph_field_embed_modules = nn.ModuleDict()
        self.ranges: dict[str, tuple[int, int]] = {}
        self.dim = num_features
        for spec in graph_fields or ():
            missing = [key for key in _REQUIRED if key not in spec]
            if missing:
                raise InputError(f"categorical_graph_field_embed: an entry lacks {', '.join(missing)}; add it")
            field, low, high = str(spec["field"]), int(spec["min"]), int(spec["max"])
            if high < low:
                raise InputError(f"categorical_graph_field_embed: max < min for field {field!r}; swap them")
            embedding = nn.Embedding(high - low + 1, int(spec["num_features"]), dtype=dtype)
            _initialise(embedding.weight, spec.get("init"))
            self.categorical_graph_field_embed_modules[field] = embedding
            self.ranges[field] = (low, high)
            self.dim += embedding.embedding_dim

    def forward(self, types: Tensor, graph_fields: Mapping[str, Tensor], batch: Tensor | None) -> NodeAttributes:
        """Attributes of atoms of the given ``types`` [N].

        Args:
            graph_fields: integer tensors with one value per structure, by field.
            batch: [N] structure of each atom; None for a single structure.
        """
        chosen = [types]
        weights: list[Tensor] = [self.embed_module.weight]
        for field, embedding in self.categorical_graph_field_embed_modules.items():
            if field not in graph_fields:
                raise InputError(f"the graph has no {field!r}, which this model embeds; add one integer per structure")
            value = graph_fields[field].view(-1)
            low, high = self.ranges[field]
            if value.numel() and not (low <= int(value.min()) and int(value.max()) <= high):
                raise InputError(f"{field!r} must lie between {low} and {high} for this model; found {value.tolist()}")
            per_atom = value[batch] if batch is not None else value.expand(types.shape[0])
            chosen.append(per_atom - low)
            weights.append(embedding.weight)  # type: ignore[arg-type]
        if backend.traced() or not backend.can("attributes", "cpu", weights[0]):
            return NodeAttributes(_rows(weights, chosen))
        # one number for each combination: of few types and categories there are few
        number = chosen[0]
        for weight, index in zip(weights[1:], chosen[1:], strict=True):
            number = number * weight.shape[0] + index
        present, row = torch.unique(number, return_inverse=True)
        indices = []
        for weight in reversed(weights):
            indices.append(present % weight.shape[0])
            present = present // weight.shape[0]
        table = _rows(weights, indices[::-1])
        return NodeAttributes(table.index_select(0, row), table, row)


def _rows(weights: Sequence[Tensor], indices: Sequence[Tensor]) -> Tensor:
    """The rows of each that are named, side by side."""
    rows = [weight.index_select(0, index) for weight, index in zip(weights, indices, strict=True)]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def _initialise(weight: Tensor, scheme: str | None) -> None:
    if scheme is None:
        return
    if scheme == "uniform":
        nn.init.uniform_(weight, -math.sqrt(3.0), math.sqrt(3.0))
    elif scheme == "zero":
        nn.init.zeros_(weight)
    elif scheme == "near_zero":
        nn.init.normal_(weight, std=1e-5)
    else:
        raise InputError(f"categorical_graph_field_embed: init must be uniform, zero or near_zero, not {scheme!r}")
