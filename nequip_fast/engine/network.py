"""A program as torch operators: what computes it where the engine in C++ does not, on a GPU.

The way back is written out, in gradients that operators have; autograd serves at both ends and in radial networks.
Nothing as wide as [E, W] or [E, d_out] reaches memory. All shapes follow from those of the arguments and nothing is
read back, so that a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nequip_fast.engine.hermite import interval_rows, interval_table
from nequip_fast.engine.program import (
    Channels,
    Layer,
    Program,
    RadialBasis,
    RadialNetwork,
    RadialTable,
    Repulsion,
)
from nequip_fast.engine.radial import basis_functions, hidden_layers
from nequip_fast.engine.rows import Dense, Gate, LinearMaps, Rows, exact_precision
from nequip_fast.nn.pair_potential import screened_repulsion
from nequip_fast.ops import ConvProblem, Graph, Path, conv_of_hidden, conv_of_table, segment_sum, spherical_harmonics
from nequip_fast.ops.conv_of_rows import conv_of_table_at, conv_of_table_gradient
from nequip_fast.ops.gate import ACTIVATIONS
from nequip_fast.ops.radial import polynomial_cutoff

# Of more atoms or edges, what is wide and quickly computed is not kept, and is there for so many at a time.
_MANY_ATOMS, _MANY_EDGES = 1 << 17, 1 << 22


class Atoms(NamedTuple):
    """Types [N], ascending, and how many there are of each."""

    types: Tensor
    counts: Sequence[int]

    @property
    def many(self) -> bool:
        """Whether memory matters more than a few launches."""
        return len(self.types) > _MANY_ATOMS

    def parts(self) -> Iterator[tuple[slice, list[int]]]:
        """Of many atoms: some after the others, and how many of these are of each type."""
        for begin in range(0, len(self.types), _MANY_ATOMS):
            end = min(begin + _MANY_ATOMS, len(self.types))
            ends = [min(max(end_of_type, begin), end) for end_of_type in accumulate(self.counts)]
            yield slice(begin, end), [b - a for a, b in pairwise([begin, *ends])]


class Edges(NamedTuple):
    """What layers know of edges."""

    x: Tensor  # distance over cutoff [E], float64
    y: Tensor  # harmonics [E, (l_max + 1)²]
    basis: Tensor  # of radial networks [E, B]; nothing where there are none
    graph: Graph


class ToEdges(NamedTuple):
    """Gradients by what layers know of edges; None: there is none."""

    x: Tensor | None = None
    y: Tensor | None = None
    basis: Tensor | None = None

    def plus(self, more: ToEdges) -> ToEdges:
        """The sum, in the place of this."""
        return ToEdges(*(b if a is None else a if b is None else a.add_(b) for a, b in zip(self, more, strict=True)))


class Network(nn.Module):
    """Energies of atoms from the vectors of their edges.

    Args:
        program: what to compute.
        dtype: of the layers; what comes before and after them is float64.
    """

    embedding: Tensor
    frequencies: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.l_max, self.basis = dtype, program.l_max, program.basis
        self.exact = any(isinstance(layer.radial, RadialNetwork) for layer in program.layers)
        self.layers = nn.ModuleList()
        rows = Rows([Channels(0, program.embedding.shape[1])])
        for layer in program.layers:
            self.layers.append(_Interaction(layer, rows, program.l_max, dtype))
            rows = Rows(layer.out)
        self.readout = nn.ModuleList(Dense(layer, dtype) for layer in program.readout)
        self.repulsion = None if program.repulsion is None else _Repulsion(program.repulsion)
        for name, value in (
            ("embedding", program.embedding.to(dtype)), ("frequencies", program.basis.frequencies.double()),
            ("scale", program.scale.double()), ("shift", program.shift.double()),
        ):  # fmt: skip
            self.register_buffer(name, value)

    def forward(
        self, vectors: Tensor, cutoff: Tensor, graph: Graph, types: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Energies [N] and the gradient of their sum by the vectors [E, 3], float64.

        Args:
            vectors: of the edges [E, 3] in Å, float64, from receiver to sender, none of them zero.
            cutoff: of each edge [E], Å.
            graph: the edges; its tensors may hold more of them than its pointers reach.
            types: of the atoms [N], ascending.
            counts: atoms of each type.
        """
        vectors = vectors.detach().requires_grad_()
        with torch.enable_grad():
            lengths = torch.linalg.vector_norm(vectors, dim=1)
            x = lengths / cutoff
            y = spherical_harmonics((vectors / lengths.unsqueeze(1)).to(self.dtype), self.l_max, normalize=False)
            basis = self._basis(x) if self.exact else y.new_empty(0)
            repulsion = None if self.repulsion is None else self.repulsion(lengths, x, graph, types)
        edges = Edges(x.detach(), y.detach(), basis.detach(), graph)
        energies, gradients = self._of_edges(edges, Atoms(types, counts))
        ends = [(part, g) for part, g in zip((x, y, basis), gradients, strict=True) if g is not None]
        if repulsion is not None:
            energies += repulsion.detach()
            ends.append((repulsion, torch.ones_like(repulsion)))
        values, cotangents = zip(*ends, strict=True)
        (pull,) = torch.autograd.grad(values, vectors, cotangents)
        return energies, pull

    def _basis(self, x: Tensor) -> Tensor:
        basis = RadialBasis(self.frequencies, self.basis.scale, self.basis.envelope)
        return basis_functions(basis, x.unsqueeze(1)).to(self.dtype)

    def _of_edges(self, edges: Edges, atoms: Atoms) -> tuple[Tensor, ToEdges]:
        """Energies, and gradients by what layers know of edges."""
        layers = [layer for layer in self.layers if isinstance(layer, _Interaction)]
        features, kept = self.embedding[atoms.types], []
        for number, layer in enumerate(layers):
            again = atoms.many and number > 0 and not (layer.collapsed or layers[number - 1].residual)
            features, of_layer = layer(features, edges, atoms, keep_sent=not again)
            kept.append(of_layer)
        energies, g = _with_gradient(lambda features: self._energies(features, atoms.types), features)
        del features, of_layer
        return energies, _back(layers, kept, g, edges, atoms)

    def _energies(self, features: Tensor, types: Tensor) -> Tensor:
        for dense in self.readout:
            features = dense(features)
        return self.shift[types] + self.scale[types] * features[:, 0].double()


def _with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """function(x), and the gradient of its sum."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = function(x)
    (gradient,) = torch.autograd.grad(value, x, torch.ones_like(value))
    return value.detach(), gradient


def _back(layers: Sequence[_Interaction], kept: list[_Kept], g: Tensor, edges: Edges, atoms: Atoms) -> ToEdges:
    """Gradients by what layers know of edges, from that by what the last one gives; everything is let go when it was
    used last, ``kept`` too.
    """
    total = ToEdges()
    for number in reversed(range(len(layers))):
        layer, of_layer = layers[number], kept.pop()
        sent, of_convolution = of_layer.sent, of_layer.of_convolution
        goes_on, residual = number > 0 and not layer.collapsed, g if layer.residual else None
        sums, to_features = layer.gradient_of_sums(of_layer, g, atoms, goes_on)
        del of_layer, g
        if sent is None:
            sent = layer.sent_again(layers[number - 1].gate, kept[-1].before, atoms)
        to_sent, to_edges = layer.convolution.gradient(sent, of_convolution, sums, edges, goes_on)
        del sums, sent, of_convolution
        total = total.plus(to_edges)
        del to_edges
        if to_sent is None or to_features is None:
            break
        g = layer.send.gradient(to_sent, atoms.counts, into=to_features)
        del to_features, to_sent
        if residual is not None:
            g += residual
    return total


class _Kept(NamedTuple):
    """Of a layer, for the way back."""

    before: Tensor  # what the gate takes
    gated: Tensor | None  # what it gives, by autograd; None: to be computed again
    sent: Tensor | None  # None: to be computed again
    of_convolution: Any


class _Interaction(nn.Module):
    """A layer of a program."""

    sent_by_type: Tensor
    bias_by_type: Tensor | None

    def __init__(self, layer: Layer, rows: Rows, l_max: int, dtype: torch.dtype) -> None:
        super().__init__()
        sent, before = Rows(layer.sent), Rows(layer.before_gate)
        problem, summed = _convolution(layer, sent, l_max)
        if isinstance(layer.radial, RadialTable):
            self.convolution: _TableConvolution | _HiddenConvolution = _TableConvolution(layer.radial, problem, dtype)
        else:
            self.convolution = _HiddenConvolution(layer.radial, problem, dtype)
        self.mix = LinearMaps(layer.mix, summed, before, dtype)
        self.gate = Gate(layer.gate, before)
        self.residual, self.collapsed = layer.residual, layer.sent_by_type is not None
        if layer.sent_by_type is not None:
            self.register_buffer("sent_by_type", sent.from_channel_last(layer.sent_by_type).to(dtype))
            bias = layer.bias_by_type
            self.register_buffer("bias_by_type", None if bias is None else before.from_channel_last(bias).to(dtype))
        else:
            self.send = LinearMaps(layer.send, rows, sent, dtype)
            self.self_connection = LinearMaps(layer.self_connection, rows, before, dtype)

    def forward(self, features: Tensor, edges: Edges, atoms: Atoms, keep_sent: bool) -> tuple[Tensor, _Kept]:
        """[N, width of rows] -> [N, width of the layer's], and what is kept for the way back."""
        types, counts = atoms
        sent = self.sent_by_type[types] if self.collapsed else self.send.product(features, counts)
        before, of_convolution = self.convolution(sent, edges, self.mix, atoms)
        if not self.collapsed:
            self.self_connection.product(features, counts, into=before)
        elif self.bias_by_type is not None:
            before += self.bias_by_type[types]
        before.requires_grad_()
        with torch.set_grad_enabled(not atoms.many):
            gated = self.gate(before)
        out = gated.detach() + features if self.residual else gated.detach()
        return out, _Kept(before, None if atoms.many else gated, sent if keep_sent else None, of_convolution)

    def gradient_of_sums(self, kept: _Kept, g: Tensor, atoms: Atoms, goes_on: bool) -> tuple[Tensor, Tensor | None]:
        """From the gradient by what the gate gives, that by the sums of paths and, if it goes on, by the features."""
        if not atoms.many:
            g = self.gate.gradient(kept.before, kept.gated, g)
            return self.mix.gradient(g, atoms.counts), (
                self.self_connection.gradient(g, atoms.counts) if goes_on else None
            )
        sums = g.new_empty(len(g), self.mix.back.target.width)
        to_features = g.new_empty(len(g), self.self_connection.back.target.width) if goes_on else None
        for some, counts in atoms.parts():
            of_some = self.gate.gradient(kept.before[some].detach().requires_grad_(), None, g[some])
            sums[some] = self.mix.gradient(of_some, counts)
            if to_features is not None:
                to_features[some] = self.self_connection.gradient(of_some, counts)
        return sums, to_features

    def sent_again(self, gate: Gate, before: Tensor, atoms: Atoms) -> Tensor:
        """What of many atoms was not kept, from what the gate in front of this layer takes."""
        sent = before.new_empty(len(before), self.send.there.target.width)
        for some, counts in atoms.parts():
            sent[some] = self.send.product(gate(before[some]), counts)
        return sent


def _convolution(layer: Layer, sent: Rows, l_max: int) -> tuple[ConvProblem, Rows]:
    """The paths, and the rows they sum."""
    channels = [0] * len(layer.summed)
    for path in layer.paths:
        channels[path.target] += sent.channels[path.source].mul
    summed = Rows([Channels(l, mul) for l, mul in zip(layer.summed, channels, strict=True)])
    filled = [0] * len(layer.summed)
    paths = []
    for path in layer.paths:
        source, l3 = sent.channels[path.source], layer.summed[path.target]
        out = summed.starts[path.target] + filled[path.target] * (2 * l3 + 1)
        filled[path.target] += source.mul
        places = sent.starts[path.source], path.l2**2, path.first, 1, out
        paths.append(Path(source.l, path.l2, l3, source.mul, *places, path.coefficient))
    radial = layer.radial
    weights = radial.values.shape[2] if isinstance(radial, RadialTable) else radial.matrices[-1].shape[1]
    return ConvProblem(paths, sent.width, (l_max + 1) ** 2, weights, summed.width), summed


class _TableConvolution(nn.Module):
    """Weights from a table."""

    knots: Tensor
    table: Tensor

    def __init__(self, radial: RadialTable, problem: ConvProblem, dtype: torch.dtype) -> None:
        super().__init__()
        self.problem = problem
        self.register_buffer("knots", radial.knots.double())
        self.register_buffer("table", interval_table(radial).to(dtype))

    def forward(self, sent: Tensor, edges: Edges, mix: LinearMaps, atoms: Atoms) -> tuple[Tensor, None]:
        """Mixed sums, and what is kept for the way back: nothing, the rows of edges are found again."""
        first, coefficients, _ = interval_rows(edges.x, self.knots, sent.dtype)
        inputs = sent, edges.y, coefficients, self.table, first, edges.graph, self.problem
        if not atoms.many:
            return mix.product(conv_of_table(*inputs), atoms.counts), None
        out = sent.new_empty(len(sent), mix.there.target.width)
        for some, counts in atoms.parts():
            out[some] = mix.product(conv_of_table_at(some.start, some.stop, *inputs), counts)
        return out, None

    def gradient(
        self, sent: Tensor, kept: None, g: Tensor, edges: Edges, want_sent: bool
    ) -> tuple[Tensor | None, ToEdges]:
        """By ``sent`` and edges, from that by the sums of paths."""
        first, coefficients, slopes = interval_rows(edges.x, self.knots, sent.dtype)
        if many := len(first) > _MANY_EDGES:
            del slopes
        to_sent, to_y, to_coefficients = conv_of_table_gradient(
            sent, edges.y, coefficients, self.table, first, g, edges.graph, self.problem, want_sent
        )
        del first, coefficients
        if not many:
            to_coefficients *= slopes
        else:
            for part, x in zip(to_coefficients.split(_MANY_EDGES), edges.x.split(_MANY_EDGES), strict=True):
                part *= interval_rows(x, self.knots, sent.dtype)[2]
        return to_sent, ToEdges(x=to_coefficients.sum(1).double(), y=to_y)


class _HiddenConvolution(nn.Module):
    """Weights by the radial network."""

    combinations: Tensor | None

    def __init__(self, radial: RadialNetwork, problem: ConvProblem, dtype: torch.dtype) -> None:
        super().__init__()
        self.problem, self.constant, self.activation = problem, radial.constant, radial.activation
        matrices = (nn.Parameter(matrix.to(dtype).contiguous(), requires_grad=False) for matrix in radial.matrices)
        self.matrices = nn.ParameterList(matrices)
        self.register_buffer("combinations", None if radial.combinations is None else radial.combinations.to(dtype))

    def forward(self, sent: Tensor, edges: Edges, mix: LinearMaps, atoms: Atoms) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mixed sums, and what is kept for the way back: inputs and sums, by autograd."""
        network = RadialNetwork(list(self.matrices), self.activation, self.constant, self.combinations)
        sent, y, basis = (part.detach().requires_grad_() for part in (sent, edges.y, edges.basis))
        with torch.enable_grad():
            h = hidden_layers(network, basis, ACTIVATIONS[self.activation])
            sums = conv_of_hidden(sent, y, h, self.matrices[-1], edges.graph, self.problem, exact_precision(h))
        return mix.product(sums.detach(), atoms.counts), (sent, y, basis, sums)

    def gradient(
        self, sent: Tensor, kept: tuple[Tensor, ...], g: Tensor, edges: Edges, want_sent: bool
    ) -> tuple[Tensor | None, ToEdges]:
        """By ``sent`` and edges, from that by the sums of paths."""
        sent, y, basis, sums = kept
        to_y, to_basis, *to_sent = torch.autograd.grad(sums, [y, basis, sent][: 2 + want_sent], g)
        return to_sent[0] if want_sent else None, ToEdges(y=to_y, basis=to_basis)


class _Repulsion(nn.Module):
    """The screened repulsion of nuclei."""

    numbers: Tensor

    def __init__(self, repulsion: Repulsion) -> None:
        super().__init__()
        self.factor, self.exponent = repulsion.factor, repulsion.exponent
        self.register_buffer("numbers", repulsion.numbers.double())

    def forward(self, lengths: Tensor, x: Tensor, graph: Graph, types: Tensor) -> Tensor:
        """[N]"""
        z = self.numbers[types]
        energies = screened_repulsion(lengths, z[graph.receiver], z[graph.sender], self.factor)
        return segment_sum((energies * polynomial_cutoff(x, self.exponent)).unsqueeze(1), graph).squeeze(1)
