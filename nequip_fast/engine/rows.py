"""What a network does with rows of nodes: linear maps, gates, the readout.

Rows hold the segments of a program one after the other, each in e3nn's layout: channels outside, components inside.
Atoms are sorted by type, ``counts`` of each: a matrix for each type is a product with a slice of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from nequip_fast.engine.program import NO_GATE, NORM, Channels, GateStep, LinearMap, ReadoutLayer
from nequip_fast.ops import backend
from nequip_fast.ops.gate import ACTIVATIONS, GateProblem, GateSegment, gate

_FEW_ROWS = 4096  # a guess: nobody has measured yet where a library's products, one for each map, are faster
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
    """From rows to rows: for each segment of the result the sum of products with the channels of its sources.

    On a GPU one kernel does all of it where rows are few, and what a launch takes would be most of the time.
    """

    weights: Tensor
    transposed: Tensor

    def __init__(self, maps: Sequence[LinearMap], source: Rows, target: Rows, dtype: torch.dtype) -> None:
        super().__init__()
        self.source, self.target = source, target
        types = next((linear.matrix.shape[0] for linear in maps if linear.matrix.dim() == 3), 1)
        self.by_type = any(linear.matrix.dim() == 3 for linear in maps)
        self.ends = [(linear.source, linear.target) for linear in maps]
        matrices = [
            (linear.matrix if linear.matrix.dim() == 3 else linear.matrix.unsqueeze(0)).expand(types, -1, -1)
            for linear in maps
        ]
        self.text, weights = _described(self.ends, matrices, source, target, types)
        back = [matrix.mT for matrix in matrices]
        self.text_back, weights_back = _described([end[::-1] for end in self.ends], back, target, source, types)
        self.register_buffer("weights", weights.to(dtype))
        self.register_buffer("transposed", weights_back.to(dtype))

    def _matrices(self) -> Iterator[tuple[int, int, Tensor]]:
        """(source, target, [types, mul_in, mul_out]) of each map."""
        begin = 0
        for j, k in self.ends:
            shape = self.source.channels[j].mul, self.target.channels[k].mul
            end = begin + shape[0] * shape[1]
            yield j, k, self.weights[:, begin:end].unflatten(1, shape)
            begin = end

    def forward(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """[N, width of source] -> [N, width of target]"""
        sizes = list(counts) if self.by_type else [rows.shape[0]]
        if rows.shape[0] <= _FEW_ROWS and backend.kernel("linear", rows) is not None:
            return _OneKernel.apply(rows, self, sizes)
        parts: list[Any] = [None] * len(self.target.channels)
        for j, k, matrix in self._matrices():
            slices = zip(self.source.segment(rows, j).split(sizes), matrix, strict=True)
            products = [torch.einsum("nui,uv->nvi", some, own) for some, own in slices if len(some) or not len(rows)]
            product = products[0] if len(products) == 1 else torch.cat(products)
            before = parts[k]
            parts[k] = product if before is None else before + product
        for k, c in enumerate(self.target.channels):
            part = rows.new_zeros(()) if parts[k] is None else parts[k]
            parts[k] = part.expand(len(rows), c.mul, 2 * c.l + 1).flatten(1)
        return torch.cat(parts, 1)


class _OneKernel(torch.autograd.Function):
    """The maps, and their transposes for the derivative."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, maps: LinearMaps, counts: list[int]) -> Tensor:
        ctx.rest = maps, counts
        return _launched(rows, maps.weights, counts, maps.target.width, maps.text)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        maps, counts = ctx.rest
        return _launched(g, maps.transposed, counts, maps.source.width, maps.text_back), None, None


def _launched(rows: Tensor, weights: Tensor, counts: list[int], width: int, text: str) -> Tensor:
    return backend.kernel("linear", rows)(rows, weights, counts, width, text, exact_precision(rows))


def exact_precision(rows: Tensor) -> str:
    """Of products of matrices, as accurate as their type: on tensor cores where three products make one of float32."""
    return "tf32x3" if rows.is_cuda and rows.dtype == torch.float32 else "ieee"


def _described(
    ends: Sequence[tuple[int, int]], matrices: Sequence[Tensor], source: Rows, target: Rows, types: int
) -> tuple[str, Tensor]:
    """The text that ``LinearProblem`` of csrc/problems/linear.h describes, and the weights [types, ·]."""
    sources: list[list[int]] = [[] for _ in target.channels]
    begin = 0
    for (j, k), matrix in zip(ends, matrices, strict=True):
        sources[k] += source.starts[j], source.channels[j].mul, begin
        begin += matrix[0].numel()
    numbers = [source.width, target.width]
    for c, start, its in zip(target.channels, target.starts, sources, strict=False):
        numbers += start, c.mul, 2 * c.l + 1, len(its) // 3, *its
    flat = [matrix.reshape(types, -1) for matrix in matrices]
    return " ".join(map(str, numbers)), torch.cat(flat, 1) if flat else torch.zeros(types, 0)


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
