"""What a network does with rows of nodes: linear maps, gates, the readout.

Rows hold the segments of a program one after the other, each in e3nn's layout: channels outside, components inside.
Atoms are sorted by type, ``counts`` of each: a matrix for each type is a product with a slice of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from nequip_fast.engine.program import NO_GATE, NORM, Channels, GateStep, LinearMap, ReadoutLayer
from nequip_fast.ops.gate import ACTIVATIONS, GateProblem, GateSegment, gate

_SHORTEST_NORM = 1e-8  # kShortestNorm in csrc/cpu/engine/kernels.h


class Rows:
    """Where the segments of a row are."""

    def __init__(self, channels: Sequence[Channels]) -> None:
        self.channels = list(channels)
        self.starts = [0, *accumulate(c.mul * (2 * c.l + 1) for c in channels)]

    @property
    def width(self) -> int:
        """Elements of a row."""
        return self.starts[-1]

    def segment(self, rows: Tensor, k: int) -> Tensor:
        """[N, mul, 2l + 1]"""
        part = rows[:, self.starts[k] : self.starts[k + 1]]
        return part.unflatten(1, (self.channels[k].mul, 2 * self.channels[k].l + 1))

    def from_channel_last(self, rows: Tensor) -> Tensor:
        """From rows with components outside, channels inside."""
        parts = [
            rows[:, start : start + c.mul * (2 * c.l + 1)].unflatten(1, (2 * c.l + 1, c.mul)).mT.flatten(1)
            for c, start in zip(self.channels, self.starts, strict=False)
        ]
        return torch.cat(parts, 1)


class LinearMaps(nn.Module):
    """From rows to rows: for each segment of the result one product with the channels of all its sources."""

    def __init__(self, maps: Sequence[LinearMap], source: Rows, target: Rows, dtype: torch.dtype) -> None:
        super().__init__()
        self.source, self.target, self.dtype = source, target, dtype
        self.sources: list[list[int]] = []
        self.matrices = nn.ParameterList()
        types = next((linear.matrix.shape[0] for linear in maps if linear.matrix.dim() == 3), None)
        for k in range(len(target.channels)):
            into = [linear for linear in maps if linear.target == k]
            self.sources.append([linear.source for linear in into])
            matrices = [
                linear.matrix if types is None or linear.matrix.dim() == 3 else linear.matrix.expand(types, -1, -1)
                for linear in into
            ]
            matrix = torch.cat(matrices, -2) if into else torch.zeros(0, target.channels[k].mul)
            self.matrices.append(nn.Parameter(matrix.to(dtype), requires_grad=False))

    def forward(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """[N, width of source] -> [N, width of target]"""
        parts = []
        for k, sources in enumerate(self.sources):
            c, matrix = self.target.channels[k], self.matrices[k]
            if not sources:
                parts.append(rows.new_zeros(rows.shape[0], c.mul * (2 * c.l + 1)))
                continue
            x = torch.cat([self.source.segment(rows, j) for j in sources], 1)
            if matrix.dim() == 2:
                product = torch.einsum("nui,uv->nvi", x, matrix)
            else:
                slices = zip(x.split(list(counts)), matrix, strict=True)
                product = torch.cat([torch.einsum("nui,uv->nvi", some, own) for some, own in slices if some.shape[0]])
            parts.append(product.flatten(1))
        return torch.cat(parts, 1)


class Gate(nn.Module):
    """The steps of a layer's gate."""

    def __init__(self, steps: Sequence[GateStep], rows: Rows) -> None:
        super().__init__()
        self.steps, self.rows = list(steps), rows
        self.by_norm = any(step.gate == NORM for step in steps)
        if not self.by_norm:
            self.problem = GateProblem(self._segments(), rows.width)

    def _segments(self) -> list[GateSegment]:
        segments, out = [], 0
        for step in self.steps:
            c, start = self.rows.channels[step.source], self.rows.starts[step.source]
            at = -1 if step.gate == NO_GATE else self.rows.starts[step.gate]
            segments.append(GateSegment(start, at, out, c.mul, 2 * c.l + 1, step.activation, step.constant))
            out += c.mul * (2 * c.l + 1)
        return segments

    def forward(self, rows: Tensor) -> Tensor:
        """[N, width before the gate] -> [N, width after]"""
        if not self.by_norm:
            return gate(rows, self.problem)
        parts = []
        for step in self.steps:
            x = self.rows.segment(rows, step.source)
            square = (x * x).sum(2, keepdim=True)
            norm = square.clamp(min=_SHORTEST_NORM**2).sqrt()  # before the root, whose slope at zero is infinite
            parts.append((step.constant * ACTIVATIONS[step.activation](norm) / norm * x).flatten(1))
        return torch.cat(parts, 1)


class Dense(nn.Module):
    """A layer of the readout."""

    matrix: Tensor

    def __init__(self, layer: ReadoutLayer, dtype: torch.dtype) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[layer.activation]
        self.register_buffer("matrix", layer.matrix.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out]"""
        return self.activation(x @ self.matrix)
