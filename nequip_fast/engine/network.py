"""A program as torch operators: what computes it where the engine in C++ does not, on a GPU.

The operators have kernels and derivatives of their own, so the reverse pass is theirs, walked by autograd; nothing as
wide as [E, W] or [E, d_out] reaches memory there. All shapes follow from those of the arguments and nothing is read
back, so that a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from nequip_fast.ops.gate import ACTIVATIONS
from nequip_fast.ops.radial import polynomial_cutoff


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

    def forward(self, vectors: Tensor, cutoff: Tensor, graph: Graph, types: Tensor, counts: Sequence[int]) -> Tensor:
        """Energies [N], float64; differentiable once by the vectors.

        Args:
            vectors: of the edges [E, 3] in Å, float64, from receiver to sender, none of them zero.
            cutoff: of each edge [E], Å.
            graph: the edges; its tensors may hold more of them than its pointers reach.
            types: of the atoms [N], ascending.
            counts: atoms of each type.
        """
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        x = lengths / cutoff
        y = spherical_harmonics((vectors / lengths.unsqueeze(1)).to(self.dtype), self.l_max, normalize=False)
        basis = self._basis(x) if self.exact else None
        features = self.embedding[types]
        for layer in self.layers:
            features = layer(features, x, basis, y, graph, types, counts)
        for dense in self.readout:
            features = dense(features)
        energies = self.shift[types] + self.scale[types] * features[:, 0].double()
        return energies if self.repulsion is None else energies + self.repulsion(lengths, x, graph, types)

    def _basis(self, x: Tensor) -> Tensor:
        basis = RadialBasis(self.frequencies, self.basis.scale, self.basis.envelope)
        return basis_functions(basis, x.unsqueeze(1)).to(self.dtype)


class _Interaction(nn.Module):
    """A layer of a program."""

    sent_by_type: Tensor
    bias_by_type: Tensor | None

    def __init__(self, layer: Layer, rows: Rows, l_max: int, dtype: torch.dtype) -> None:
        super().__init__()
        sent, before = Rows(layer.sent), Rows(layer.before_gate)
        problem, summed = _convolution(layer, sent, l_max)
        if isinstance(layer.radial, RadialTable):
            self.convolution: nn.Module = _TableConvolution(layer.radial, problem, dtype)
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

    def forward(
        self, features: Tensor, x: Tensor, basis: Tensor | None, y: Tensor, graph: Graph, types: Tensor,
        counts: Sequence[int],
    ) -> Tensor:  # fmt: skip
        sent = self.sent_by_type[types] if self.collapsed else self.send(features, counts)
        before = self.mix(self.convolution(sent, x, basis, y, graph), counts)
        if not self.collapsed:
            before = before + self.self_connection(features, counts)
        elif self.bias_by_type is not None:
            before = before + self.bias_by_type[types]
        out = self.gate(before)
        return out + features if self.residual else out


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

    def forward(self, sent: Tensor, x: Tensor, basis: Tensor | None, y: Tensor, graph: Graph) -> Tensor:
        first, coefficients = interval_rows(x, self.knots, y.dtype)
        return conv_of_table(sent, y, coefficients, self.table, first, graph, self.problem)


class _HiddenConvolution(nn.Module):
    """Weights by the radial network."""

    combinations: Tensor | None

    def __init__(self, radial: RadialNetwork, problem: ConvProblem, dtype: torch.dtype) -> None:
        super().__init__()
        self.problem, self.constant, self.activation = problem, radial.constant, radial.activation
        matrices = (nn.Parameter(matrix.to(dtype).contiguous(), requires_grad=False) for matrix in radial.matrices)
        self.matrices = nn.ParameterList(matrices)
        self.register_buffer("combinations", None if radial.combinations is None else radial.combinations.to(dtype))

    def forward(self, sent: Tensor, x: Tensor, basis: Tensor, y: Tensor, graph: Graph) -> Tensor:
        network = RadialNetwork(list(self.matrices), self.activation, self.constant, self.combinations)
        h = hidden_layers(network, basis, ACTIVATIONS[self.activation])
        return conv_of_hidden(sent, y, h, self.matrices[-1], graph, self.problem, exact_precision(h))


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
