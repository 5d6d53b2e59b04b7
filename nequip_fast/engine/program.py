"""What the engine computes, as plain irreps and matrices: the form in which a model reaches the C++ code.

Features are rows of segments, each ``mul`` channels of degree l. A layer is

    sent    = in · send                                 (by type in the first layer, whose input is the type alone)
    summed  = Σ_neighbours Σ_paths c · w_path(r/r_c) · (sent ⊗ Y(r))
    before  = summed · mix + in · self_connection[type]
    out     = gate(before) (+ in)

and the energy of an atom ``shift[type] + scale[type] · readout(out of the last layer)``. All constants of the source
model (normalisation of linear layers, average number of neighbours, activation constants) are folded into the matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nequip_fast.ops.gate import ACTIVATIONS

NO_GATE, NORM = -1, -2  # as kNoGate and kNormGate in csrc/cpu/engine/kernels.h
_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


@dataclass(frozen=True)
class Channels:
    """``mul`` channels of degree ``l``."""

    l: int
    mul: int


@dataclass(frozen=True)
class LinearMap:
    """A matrix [mul_from, mul_to] from one segment to another, or one for each type [types, mul_from, mul_to]."""

    source: int
    target: int
    matrix: Tensor


@dataclass(frozen=True)
class Path:
    """One coupling of the convolution: segment ``source`` with Y of degree ``l2`` into segment ``target`` of the sums.

    ``table`` [intervals + 1, 2, mul]: the weights at the knots r/r_c = 0 … 1 and their slopes times the interval.
    """

    source: int
    l2: int
    target: int
    coefficient: float
    table: Tensor


@dataclass(frozen=True)
class GateStep:
    """Segment ``source`` times ``constant · activation`` of the scalars of segment ``gate``.

    Where that is ``NO_GATE``, ``source`` are scalars and go through the activation themselves; where it is ``NORM``,
    each channel x becomes ``constant · activation(|x|) x / |x|``.
    """

    source: int
    gate: int
    activation: str
    constant: float


@dataclass(frozen=True)
class Layer:
    """One interaction; ``sent_by_type`` [types, dim] and ``bias_by_type`` [types, dim] are for the first layer.

    Rows by type list segment after segment, components outside, channels inside.
    """

    sent: Sequence[Channels]
    summed: Sequence[int]  # degrees
    before_gate: Sequence[Channels]
    paths: Sequence[Path]
    mix: Sequence[LinearMap]
    gate: Sequence[GateStep]
    send: Sequence[LinearMap] = ()
    self_connection: Sequence[LinearMap] = ()
    sent_by_type: Tensor | None = None
    bias_by_type: Tensor | None = None
    residual: bool = False


@dataclass(frozen=True)
class ReadoutLayer:
    """``activation(x · matrix)``, matrix [in, out]."""

    matrix: Tensor
    activation: str = "identity"


@dataclass(frozen=True)
class Repulsion:
    """The term of :class:`nequip_fast.nn.ZBL`: half of ``factor · Zi Zj / r · …`` for each directed edge.

    ``exponent`` is that of the envelope, ``numbers`` [types] are the atomic numbers.
    """

    factor: float
    exponent: float
    numbers: Tensor


@dataclass(frozen=True)
class Program:
    """A model for the engine; all tensors float64.

    Attributes:
        type_names: name of each type, by index.
        cutoff: [types, types] Å, by type of the centre and of the neighbour.
        l_max: degree of the spherical harmonics.
        intervals: of the radial tables.
    """

    type_names: Sequence[str]
    cutoff: Tensor
    l_max: int
    intervals: int
    layers: Sequence[Layer]
    readout: Sequence[ReadoutLayer]
    scale: Tensor
    shift: Tensor
    repulsion: Repulsion | None = None

    def lists(self) -> tuple[list[int], Tensor]:
        """The program as csrc/cpu/engine/program.cpp reads it: integers, and all numbers one after the other."""
        lists = _Lists()
        lists.integers += [len(self.type_names), self.l_max, self.intervals]
        lists.numbers(self.cutoff)
        lists.integers.append(len(self.layers))
        for index, layer in enumerate(self.layers):
            _write_layer(lists, layer, first=index == 0)
        lists.integers.append(len(self.readout))
        for readout in self.readout:
            lists.integers += [readout.matrix.shape[1], _CODES[readout.activation]]
            lists.numbers(readout.matrix)
        lists.numbers(self.scale)
        lists.numbers(self.shift)
        lists.integers.append(int(self.repulsion is not None))
        if self.repulsion is not None:
            lists.numbers(self.repulsion.factor)
            lists.numbers(self.repulsion.exponent)
            lists.numbers(self.repulsion.numbers)
        return lists.integers, torch.cat(lists.parts)


@dataclass
class _Lists:
    integers: list[int] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)

    def numbers(self, values: Tensor | float) -> None:
        self.parts.append(torch.as_tensor(values, dtype=torch.float64).flatten())

    def channels(self, segments: Sequence[Channels]) -> None:
        self.integers.append(len(segments))
        for segment in segments:
            self.integers += [segment.l, segment.mul]

    def maps(self, maps: Sequence[LinearMap]) -> None:
        self.integers.append(len(maps))
        for linear in maps:
            self.integers += [linear.source, linear.target]
            self.numbers(linear.matrix)


def _write_layer(lists: _Lists, layer: Layer, first: bool) -> None:
    lists.channels(layer.sent)
    if first:
        assert layer.sent_by_type is not None
        lists.numbers(layer.sent_by_type)
    else:
        lists.integers.append(int(any(linear.matrix.dim() == 3 for linear in layer.send)))
        lists.maps(layer.send)
    lists.integers += [len(layer.summed), *layer.summed, len(layer.paths)]
    for path in layer.paths:
        lists.integers += [path.source, path.l2, path.target]
        lists.numbers(path.coefficient)
        lists.numbers(path.table)
    lists.channels(layer.before_gate)
    lists.maps(layer.mix)
    if first:
        lists.integers.append(int(layer.bias_by_type is not None))
        if layer.bias_by_type is not None:
            lists.numbers(layer.bias_by_type)
    else:
        lists.maps(layer.self_connection)
    lists.integers.append(len(layer.gate))
    for step in layer.gate:
        lists.integers += [step.source, step.gate, _CODES[step.activation]]
        lists.numbers(step.constant)
    lists.integers.append(int(layer.residual))
