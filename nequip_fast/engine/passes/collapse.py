"""The first layer's input depends on the type alone: so does what it sends, and what its self-connection adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nequip_fast.engine.program import Channels, LinearMap, Program


def collapse(program: Program) -> Program:
    """The first layer's linear maps of the embedding as rows by type; then nothing flows back through them either.

    A first layer with a residual sum stays as it is.
    """
    first = program.layers[0]
    if first.residual or first.sent_by_type is not None:
        return program
    collapsed = replace(
        first,
        sent_by_type=_rows(program.embedding, first.send, first.sent),
        bias_by_type=_rows(program.embedding, first.self_connection, first.before_gate)
        if first.self_connection
        else None,
        send=(),
        self_connection=(),
    )
    return replace(program, layers=[collapsed, *program.layers[1:]])


def _rows(embedding: Tensor, maps: Sequence[LinearMap], segments: Sequence[Channels]) -> Tensor:
    """[types, dim]: what the maps make of the scalars of each type; nothing where there is no map."""
    types = embedding.shape[0]
    rows = [embedding.new_zeros(types, (2 * segment.l + 1) * segment.mul) for segment in segments]
    for linear in maps:
        by_type = linear.matrix if linear.matrix.dim() == 3 else linear.matrix.expand(types, -1, -1)
        rows[linear.target] += torch.einsum("tu,tuv->tv", embedding, by_type)
    return torch.cat(rows, 1)
