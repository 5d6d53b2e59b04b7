"""What a network does with rows of nodes: linear maps, gates, the readout.

Rows hold the segments of a program one after the other, each in e3nn's layout: channels outside, components inside.
Atoms are sorted by type, ``counts`` of each: a matrix for each type is a product with a slice of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from nequip_fast.engine.program import NO_GATE, NORM, Channels, GateStep, LinearMap, ReadoutLayer
from nequip_fast.ops import backend
from nequip_fast.ops.gate import ACTIVATIONS, GateProblem, GateSegment, gate

_FEW_ROWS = 4096  # a guess: nobody has measured yet where a library's products, one for each map, are faster
_ROWS_AT_ONCE = 1 << 17  # a library multiplies: its products are there beside all of the result
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
    """From rows to rows: for each segment of the result the sum of products with the channels of its sources. Autograd
    does not look through them.

    On a GPU one kernel does all of it where rows are few, and what a launch takes would be most of the time.
    """

    weights: Tensor
    transposed: Tensor

    def __init__(self, maps: Sequence[LinearMap], source: Rows, target: Rows, dtype: torch.dtype) -> None:
        super().__init__()
        types = next((linear.matrix.shape[0] for linear in maps if linear.matrix.dim() == 3), 1)
        self.by_type = any(linear.matrix.dim() == 3 for linear in maps)
        ends = [(linear.source, linear.target) for linear in maps]
        matrices = [
            (linear.matrix if linear.matrix.dim() == 3 else linear.matrix.unsqueeze(0)).expand(types, -1, -1)
            for linear in maps
        ]
        self.there, weights = _Direction.of(ends, matrices, source, target, types)
        back = [matrix.mT for matrix in matrices]
        self.back, transposed = _Direction.of([end[::-1] for end in ends], back, target, source, types)
        self.register_buffer("weights", weights.to(dtype))
        self.register_buffer("transposed", transposed.to(dtype))

    def product(self, rows: Tensor, counts: Sequence[int], into: Tensor | None = None) -> Tensor:
        """[N, width of source] -> [N, width of target]; ``into``: to be added to this, in its place."""
        return self.there(rows, self.weights, counts if self.by_type else [rows.shape[0]], into)

    def gradient(self, g: Tensor, counts: Sequence[int], into: Tensor | None = None) -> Tensor:
        """[N, width of target] -> [N, width of source], that of (g · product); ``into`` as in :meth:`product`."""
        return self.back(g, self.transposed, counts if self.by_type else [g.shape[0]], into)


@dataclass(frozen=True)
class _Direction:
    """Maps from one kind of rows to another."""

    ends: list[tuple[int, int]]  # source and target of each
    source: Rows
    target: Rows
    text: str  # that LinearProblem of csrc/problems/linear.h describes

    @classmethod
    def of(
        cls, ends: list[tuple[int, int]], matrices: Sequence[Tensor], source: Rows, target: Rows, types: int
    ) -> tuple[_Direction, Tensor]:
        """The maps, and their weights [types, ·]."""
        sources: list[list[int]] = [[] for _ in target.channels]
        begin = 0
        for (j, k), matrix in zip(ends, matrices, strict=True):
            sources[k] += source.starts[j], source.channels[j].mul, begin
            begin += matrix[0].numel()
        numbers = [source.width, target.width]
        for c, start, its in zip(target.channels, target.starts, sources, strict=False):
            numbers += start, c.mul, 2 * c.l + 1, len(its) // 3, *its
        flat = [matrix.reshape(types, -1) for matrix in matrices]
        weights = torch.cat(flat, 1) if flat else torch.zeros(types, 0)
        return cls(ends, source, target, " ".join(map(str, numbers))), weights

    def __call__(self, rows: Tensor, weights: Tensor, counts: Sequence[int], into: Tensor | None) -> Tensor:
        kernel = backend.kernel("linear", rows) if rows.shape[0] <= _FEW_ROWS else None
        if kernel is not None:
            found = kernel(rows, weights, counts, self.target.width, self.text, exact_precision(rows))
            return found if into is None else into.add_(found)
        every = set(range(len(self.target.channels)))
        out, written = (rows.new_empty(rows.shape[0], self.target.width), set()) if into is None else (into, every)
        begin = 0
        for j, k in self.ends:
            shape = self.source.channels[j].mul, self.target.channels[k].mul
            end = begin + shape[0] * shape[1]
            matrices = weights[:, begin:end].unflatten(1, shape)
            of_types = self.source.segment(rows, j).split(counts), self.target.segment(out, k).split(counts), matrices
            for of_type, place, matrix in zip(*of_types, strict=True):
                for x, part in zip(of_type.split(_ROWS_AT_ONCE), place.split(_ROWS_AT_ONCE), strict=True):
                    product = torch.einsum("nui,uv->nvi", x, matrix)
                    part.add_(product) if k in written else part.copy_(product)
            begin = end
            written = written | {k}
        for k in every - written:
            self.target.segment(out, k).zero_()
        return out


def exact_precision(rows: Tensor) -> str:
    """Of products of matrices, as accurate as their type: on tensor cores where three products make one of float32."""
    return "tf32x3" if rows.is_cuda and rows.dtype == torch.float32 else "ieee"


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

    def gradient(self, rows: Tensor, gated: Tensor | None, g: Tensor) -> Tensor:
        """By ``rows``, a leaf of autograd, from that by what became of them; None if that is to be computed again."""
        if gated is None:
            with torch.enable_grad():
                gated = self(rows)
        return torch.autograd.grad(gated, rows, g)[0]


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
