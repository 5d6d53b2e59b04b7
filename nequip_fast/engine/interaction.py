"""An interaction of a NequIP-like model, in e3nn's terms, as a layer of a program: what all sources share.

e3nn's rows hold blocks of irreps, the engine's rows segments; a segment is a block or, before a gate, a part of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from e3nn.o3 import Irreps
from torch import Tensor
from torch.nn.functional import pad

from nequip_fast.engine.program import NO_GATE, Channels, GateStep, Layer, LinearMap, Path, RadialNetwork
from nequip_fast.errors import InputError
from nequip_fast.ops import ConvProblem
from nequip_fast.ops.gate import GateSegment

Matrix = tuple[int, int, Tensor]  # between two blocks of irreps, [mul_in, mul_out] or [types, mul_in, mul_out]
ONE = Irreps("1x0e")
"""Behind the rows of a model that adds constants to them: a channel that is one in every atom, and carries them."""


class Place(NamedTuple):
    """Where a segment's channels begin in a row of e3nn's layout."""

    l: int
    mul: int
    start: int

    @property
    def end(self) -> int:
        return self.start + self.mul * (2 * self.l + 1)


@dataclass(frozen=True)
class Gating:
    """The segments that a nonlinearity takes, its steps, and the segments that it gives."""

    before: Sequence[Place]
    steps: Sequence[GateStep]
    after: Sequence[Place]

    @classmethod
    def of_segments(cls, segments: Iterable[GateSegment]) -> Gating:
        """Of a :class:`~nequip_fast.ops.gate.GateProblem`."""
        before: list[Place] = []
        steps: list[GateStep] = []
        after: list[Place] = []
        for segment in sorted(segments, key=lambda segment: segment.out):
            source, l, gated = len(before), (segment.dim - 1) // 2, segment.gate >= 0
            before.append(Place(l, segment.mul, segment.x))
            if gated:
                before.append(Place(0, segment.mul, segment.gate))
            steps.append(GateStep(source, source + 1 if gated else NO_GATE, segment.activation, segment.constant))
            after.append(Place(l, segment.mul, segment.out))
        return cls(before, steps, after)


@dataclass(frozen=True)
class Interaction:
    """``gate(second · Σ_neighbours (first · x) ⊗ Y · radial + connection · x) (+ x)``, matrices between irreps.

    Attributes:
        irreps_in, irreps_out: of x, and of what the gate takes; both without :data:`ONE`.
        convolution: its output irreps, merged, are what ``second`` takes.
        factor: of what is sent, a number or [types, 1, 1].
        constants: whether the rows carry :data:`ONE`, the block behind those of ``irreps_in``; then ``first`` and
            ``connection`` may have matrices from it.
    """

    irreps_in: Irreps
    first: Sequence[Matrix]
    factor: Tensor | float
    convolution: ConvProblem
    radial: RadialNetwork
    irreps_summed: Irreps
    second: Sequence[Matrix]
    connection: Sequence[Matrix]
    irreps_out: Irreps
    gating: Gating
    residual: bool = False
    constants: bool = False

    @property
    def row(self) -> Irreps:
        """Of the input with all it carries."""
        return self.irreps_in + ONE if self.constants else self.irreps_in

    @property
    def after(self) -> list[Place]:
        """The segments that it gives."""
        end = max(place.end for place in self.gating.after)
        return [*self.gating.after, *([Place(0, 1, end)] if self.constants else [])]

    def layer(self, places_in: Sequence[Place]) -> Layer:
        """The layer, for input segments that stand at ``places_in``.

        Raises:
            InputError: the edge attributes are not the harmonics in order.
        """
        sent, summed, before = places(self.irreps_in), places(self.irreps_summed), self.gating.before
        connection, irreps_out, steps = self.connection, self.irreps_out, self.gating.steps
        if self.constants:
            connection = [*connection, (len(self.irreps_in), len(irreps_out), torch.ones(1, 1, dtype=torch.float64))]
            before = [*before, Place(0, 1, irreps_out.dim)]
            steps = [*steps, GateStep(len(before) - 1, NO_GATE, "identity", 1.0)]
            irreps_out = irreps_out + ONE
        paths, rows = _paths(self.convolution, sent, summed)
        return Layer(
            sent=_channels(sent),
            summed=[place.l for place in summed],
            before_gate=_channels(before),
            radial=self.radial,
            paths=paths,
            mix=[
                replace(linear, matrix=linear.matrix[rows[linear.source]])
                for linear in _maps(self.second, self.irreps_summed, irreps_out, summed, before)
            ],
            gate=steps,
            send=[
                replace(linear, matrix=linear.matrix * self.factor)
                for linear in _maps(self.first, self.row, self.irreps_in, places_in, sent)
            ],
            self_connection=_maps(_all_by_type(connection), self.row, irreps_out, places_in, before),
            residual=self.residual,
        )


def places(irreps: Irreps) -> list[Place]:
    """A segment for each block that has channels."""
    return [Place(ir.l, mul, block.start) for (mul, ir), block in zip(irreps, irreps.slices(), strict=True) if mul]


def scalars(segments: Sequence[Place]) -> Tensor:
    """Which element of e3nn's row each channel of scalar segments is."""
    return torch.cat([torch.arange(place.start, place.end) for place in segments])


def linear_matrices(linear: Any) -> list[Matrix]:
    """Of a ``Linear`` without biases, float64."""
    return [
        (ins.i_in, ins.i_out, view.detach().double() * ins.path_weight)
        for _, ins, view in linear.weight_views(yield_instruction=True)
    ]


def product_matrices(product: Any, attributes: Tensor) -> list[Matrix]:
    """Of a ``FullyConnectedTensorProduct`` with the scalars ``attributes`` [types, n] of each type, float64.

    C(l, 0, l) is 1/√(2l + 1).
    """
    return [
        (
            ins.i_in1,
            ins.i_out,
            torch.einsum("uvw,tv->tuw", view.detach().double(), attributes)
            * (ins.path_weight / product.irreps_out[ins.i_out].ir.dim ** 0.5),
        )
        for _, ins, view in product.weight_views(yield_instruction=True)
    ]


def _channels(segments: Sequence[Place]) -> list[Channels]:
    return [Channels(place.l, place.mul) for place in segments]


def _paths(problem: ConvProblem, sent: Sequence[Place], summed: Sequence[Place]) -> tuple[list[Path], list[Tensor]]:
    """The paths, and for each sum which row of the next matrix each of its channels meets."""
    paths: list[Path] = []
    rows: list[list[Tensor]] = [[] for _ in summed]
    for path in problem.paths:
        if path.y != path.l2**2 or path.w_stride != 1:
            raise InputError("a model whose irreps_edge_sh are not the harmonics 0 … l_max in order cannot be compiled")
        source = next(i for i, place in enumerate(sent) if place.start == path.x)
        target = next(i for i, place in enumerate(summed) if place.start <= path.out < place.end)
        first = (path.out - summed[target].start) // (2 * path.l3 + 1)
        rows[target].append(torch.arange(first, first + path.mul))
        paths.append(Path(source, path.l2, target, path.w, path.coefficient))
    return paths, [torch.cat(of_sum) for of_sum in rows]


def _maps(
    matrices: Iterable[Matrix], irreps_in: Irreps, irreps_out: Irreps, rows: Sequence[Place], columns: Sequence[Place]
) -> list[LinearMap]:
    """Matrices between blocks of irreps as matrices between segments; of rows, a segment may span several blocks."""
    starts_in, starts_out = irreps_in.slices(), irreps_out.slices()
    parts: dict[tuple[int, int], Tensor] = {}
    for i, j, matrix in matrices:
        n = irreps_in[i].ir.dim
        for a, row in enumerate(rows):
            start, end = max(row.start, starts_in[i].start), min(row.end, starts_in[i].stop)
            for b, column in enumerate(columns):
                if start >= end or not starts_out[j].start <= column.start < starts_out[j].stop:
                    continue
                u, v = (start - starts_in[i].start) // n, (column.start - starts_out[j].start) // n
                part = matrix[..., u : u + (end - start) // n, v : v + column.mul]
                part = pad(part, (0, 0, (start - row.start) // n, (row.end - end) // n))
                parts[a, b] = parts[a, b] + part if (a, b) in parts else part
    return [LinearMap(a, b, part.contiguous()) for (a, b), part in parts.items()]


def _all_by_type(matrices: Sequence[Matrix]) -> Sequence[Matrix]:
    """With a dimension for the type, if any of them has one."""
    types = {matrix.shape[0] for _, _, matrix in matrices if matrix.dim() == 3}
    return [(i, j, matrix.expand(*types, -1, -1)) for i, j, matrix in matrices] if types else matrices
