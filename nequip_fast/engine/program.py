"""What the engine computes, as plain irreps and matrices: the form in which a model reaches the C++ code.

Features are rows of segments, each ``mul`` channels of degree l. A layer is

    sent    = in · send                                 (a matrix for each type of the sender, or one for all)
    summed  = Σ_neighbours Σ_paths c · w_path(r/r_c) · (sent ⊗ Y(r))
    before  = summed · mix + in · self_connection       (likewise)
    out     = gate(before) (+ in)

from the embedding of each atom's type on, and the energy of an atom ``shift[type] + scale[type] · readout(out of the
last layer)``. All constants of the source model (normalisation of linear layers, average number of neighbours,
activation constants) are folded into the matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nequip_fast.ops.gate import ACTIVATIONS

NO_GATE, NORM = -1, -2  # as kNoGate and kNormGate in csrc/cpu/engine/kernels.h
ENVELOPES = "polynomial", "xplor"  # as RadialBasis::Envelope in csrc/cpu/engine/program.h
_ACTIVATION_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


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

    Its channels have the radial weights from column ``first`` on.
    """

    source: int
    l2: int
    target: int
    first: int
    coefficient: float


@dataclass(frozen=True)
class Envelope:
    """What takes the radial basis to zero at x = r/r_c = 1.

    ``polynomial``: :func:`nequip_fast.nn.radial.polynomial_cutoff` of exponent ``parameter``. ``xplor``: 1 up to
    ``parameter`` = on, then ``(1 − x²)² (1 + 2x² − 3 on²) / (1 − on²)³``, whose second derivative jumps there.
    """

    kind: str
    parameter: float


@dataclass(frozen=True)
class RadialBasis:
    """``scale · sin(frequency_k x) / x · envelope(x)`` for each of ``frequencies`` [K]."""

    frequencies: Tensor
    scale: float
    envelope: Envelope


@dataclass(frozen=True)
class RadialNetwork:
    """The radial weights of a layer: matrices [in, out] on the basis, ``constant · activation`` between them.

    With ``combinations`` [in, rank] the last matrix [rank, W] acts on these combinations of what it acted on.
    """

    matrices: Sequence[Tensor]
    activation: str = "identity"
    constant: float = 1.0
    combinations: Tensor | None = None


@dataclass(frozen=True)
class RadialTable:
    """The radial weights of a layer by quintic Hermite interpolation between ``knots`` [intervals + 1], x = 0 … 1.

    ``values`` [intervals + 1, 3, W]: the weights there, their first and second derivatives; ``network`` is what they
    were made from.
    """

    knots: Tensor
    values: Tensor
    network: RadialNetwork


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
    """One interaction.

    ``sent_by_type`` [types, dim] and ``bias_by_type`` [types, dim] stand for ``send`` and ``self_connection`` of a
    first layer that has been collapsed; they list segment after segment, components outside, channels inside.
    """

    sent: Sequence[Channels]
    summed: Sequence[int]  # degrees
    before_gate: Sequence[Channels]
    radial: RadialNetwork | RadialTable
    paths: Sequence[Path]
    mix: Sequence[LinearMap]
    gate: Sequence[GateStep]
    send: Sequence[LinearMap] = ()
    self_connection: Sequence[LinearMap] = ()
    sent_by_type: Tensor | None = None
    bias_by_type: Tensor | None = None
    residual: bool = False

    @property
    def out(self) -> list[Channels]:
        """Segments after the gate."""
        return [self.before_gate[step.source] for step in self.gate]


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
        embedding: [types, channels], the scalars every atom begins with; not used once the first layer is collapsed.
        basis: of the radial networks.
    """

    type_names: Sequence[str]
    cutoff: Tensor
    l_max: int
    embedding: Tensor
    basis: RadialBasis
    layers: Sequence[Layer]
    readout: Sequence[ReadoutLayer]
    scale: Tensor
    shift: Tensor
    repulsion: Repulsion | None = None

    def lists(self) -> tuple[list[int], Tensor]:
        """The program as csrc/cpu/engine/program.cpp reads it: integers, and all numbers one after the other."""
        lists = _Lists()
        lists.add(len(self.type_names), self.l_max)
        lists.numbers(self.cutoff)
        needs_basis = any(isinstance(layer.radial, RadialNetwork) for layer in self.layers)
        lists.add(self.basis.frequencies.numel() if needs_basis else 0)
        if needs_basis:
            lists.add(ENVELOPES.index(self.basis.envelope.kind))
            lists.numbers(self.basis.frequencies, self.basis.scale, self.basis.envelope.parameter)
        collapsed = self.layers[0].sent_by_type is not None
        lists.add(0 if collapsed else self.embedding.shape[1])
        if not collapsed:
            lists.numbers(self.embedding)
        lists.add(len(self.layers))
        for layer in self.layers:
            lists.layer(layer)
        lists.add(len(self.readout))
        for readout in self.readout:
            lists.add(readout.matrix.shape[1], _ACTIVATION_CODES[readout.activation])
            lists.numbers(readout.matrix)
        lists.numbers(self.scale, self.shift)
        lists.add(int(self.repulsion is not None))
        if self.repulsion is not None:
            lists.numbers(self.repulsion.factor, self.repulsion.exponent, self.repulsion.numbers)
        return lists.integers, torch.cat(lists.parts)


@dataclass
class _Lists:
    integers: list[int] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)

    def add(self, *integers: int) -> None:
        self.integers += integers

    def numbers(self, *values: Tensor | float) -> None:
        self.parts += [torch.as_tensor(value, dtype=torch.float64).flatten() for value in values]

    def channels(self, segments: Sequence[Channels]) -> None:
        self.add(len(segments))
        for segment in segments:
            self.add(segment.l, segment.mul)

    def maps(self, maps: Sequence[LinearMap]) -> None:
        self.add(len(maps))
        for linear in maps:
            self.add(linear.source, linear.target)
            self.numbers(linear.matrix)

    def maps_by_type(self, maps: Sequence[LinearMap]) -> None:
        """All of them have a matrix for each type, or none."""
        self.add(int(any(linear.matrix.dim() == 3 for linear in maps)))
        self.maps(maps)

    def radial(self, radial: RadialNetwork | RadialTable) -> None:
        if isinstance(radial, RadialTable):
            self.add(radial.values.shape[2], radial.values.shape[0] - 1)
            self.numbers(radial.knots, radial.values)
            return
        *hidden, last = radial.matrices
        self.add(last.shape[1], 0, _ACTIVATION_CODES[radial.activation])
        self.numbers(radial.constant)
        linear = [] if radial.combinations is None else [radial.combinations]
        self.add(len(linear))
        self.add(len(hidden) + len(linear), *[matrix.shape[1] for matrix in (*hidden, *linear)])
        self.numbers(*hidden, *linear, last)

    def layer(self, layer: Layer) -> None:
        self.channels(layer.sent)
        if layer.sent_by_type is not None:
            self.numbers(layer.sent_by_type)
        else:
            self.maps_by_type(layer.send)
        self.radial(layer.radial)
        self.add(len(layer.summed), *layer.summed, len(layer.paths))
        for path in layer.paths:
            self.add(path.source, path.l2, path.target, path.first)
            self.numbers(path.coefficient)
        self.channels(layer.before_gate)
        self.maps(layer.mix)
        if layer.sent_by_type is not None:
            self.add(int(layer.bias_by_type is not None))
            if layer.bias_by_type is not None:
                self.numbers(layer.bias_by_type)
        else:
            self.maps_by_type(layer.self_connection)
        self.add(len(layer.gate))
        for step in layer.gate:
            self.add(step.source, step.gate, _ACTIVATION_CODES[step.activation])
            self.numbers(step.constant)
        self.add(int(layer.residual))
