"""A NequIP model as a :class:`~nequip_fast.engine.program.Program`: every constant folded into plain matrices.

The self-connection is contracted with each type's embedding, and the average number of neighbours goes into the first
linear layer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from nequip_fast.engine.program import (
    NO_GATE,
    NORM,
    Channels,
    Envelope,
    GateStep,
    Layer,
    LinearMap,
    Path,
    Program,
    RadialBasis,
    RadialNetwork,
    ReadoutLayer,
    Repulsion,
)
from nequip_fast.errors import InputError
from nequip_fast.model import GraphModel
from nequip_fast.model.nequip import NequIP
from nequip_fast.nn import ZBL, ConvNetLayer, ScalarMLP
from nequip_fast.nn.interaction import InteractionBlock
from nequip_fast.nn.mlp import Activation, DeepLinear, ScaledLinear
from nequip_fast.nn.model_gate import Gate
from nequip_fast.nn.norm_activation import NormActivation
from nequip_fast.o3 import Linear, TensorProduct
from nequip_fast.ops.gate import ACTIVATIONS


class _Place(NamedTuple):
    """Where a segment's channels begin in a row of e3nn's layout."""

    l: int
    mul: int
    start: int

    @property
    def end(self) -> int:
        return self.start + self.mul * (2 * self.l + 1)


_Matrix = tuple[int, int, Tensor]  # between two blocks of irreps


class NequIPSource:
    """A :class:`~nequip_fast.engine.source.Source` of NequIP models.

    Raises:
        InputError: the model has a part that the engine does not know.
    """

    def __init__(self, model: GraphModel) -> None:
        if not isinstance(model, NequIP):
            raise InputError(f"only NequIP models can be compiled, not {type(model).__name__}")
        if model.type_embed.ranges:
            raise InputError(
                "a model with categorical_graph_field_embed cannot be compiled: its energy depends on more"
            )
        self.model = copy.deepcopy(model).cpu().eval()
        self.type_names, self.r_max, self.dtype = list(model.type_names), float(model.r_max), model.model_dtype
        self.cutoffs = model.config.get("per_edge_type_cutoff")

    def evaluate(self, graph: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's outputs."""
        return self.model(dict(graph))

    def program(self) -> Program:
        """The model, exactly."""
        return _program(_in_float64(self.model))


def _program(model: NequIP) -> Program:
    types = len(model.type_names)
    reciprocal = model.edge_norm._rmax_recip
    cutoff = reciprocal.reciprocal().expand(types * types) if reciprocal.dim() == 0 else reciprocal.reciprocal()
    embedding = model.type_embed.embed_module.weight.detach()
    basis = model.bessel_encode
    layers: list[Layer] = []
    places = [_Place(0, embedding.shape[1], 0)]
    for layer in model.layers:
        described, places = _layer(layer, places, embedding)
        layers.append(described)
    energy = model.per_type_energy_scale_shift
    return Program(
        type_names=list(model.type_names),
        cutoff=cutoff.reshape(types, types).clone(),
        l_max=max(path.l2 for layer in layers for path in layer.paths),
        embedding=embedding,
        basis=RadialBasis(
            basis.bessel_weights.detach().flatten() * math.pi, basis.factor / math.pi, Envelope("polynomial", basis.p)
        ),
        layers=layers,
        readout=_readout(model.per_atom_energy_readout.mlp_module, places),
        scale=_per_type(energy.scales, 1.0, types),
        shift=_per_type(energy.shifts, 0.0, types),
        repulsion=None if model.pair_potential is None else _repulsion(model.pair_potential),
    )


def _repulsion(zbl: ZBL) -> Repulsion:
    return Repulsion(float(zbl._qqr2exesquare), zbl.polynomial_cutoff_p, zbl.atomic_numbers.detach())


def _in_float64(model: NequIP) -> NequIP:
    model = copy.deepcopy(model).double().cpu().eval()
    model.bessel_encode.dtype = torch.float64
    return model


def _per_type(values: Tensor | None, default: float, types: int) -> Tensor:
    if values is None:
        return torch.full((types,), default, dtype=torch.float64)
    return values.detach().flatten().expand(types).clone()


def _layer(layer: ConvNetLayer, places_in: Sequence[_Place], embedding: Tensor) -> tuple[Layer, list[_Place]]:
    """The layer, and where its output segments stand in e3nn's rows."""
    block = layer.conv
    norm = block._norm.unsqueeze(1) if block._norm.numel() > 1 else block._norm  # [types, 1, 1], or one number
    irreps_in = block.linear_1.irreps_in
    sent = [_Place(ir.l, mul, s.start) for (mul, ir), s in zip(irreps_in, irreps_in.slices(), strict=True) if mul]
    before, gate, out = _gate(layer.equivariant_nonlin)
    mixed = block.tp_scatter.irreps_out.simplify()
    summed = [_Place(ir.l, mul, s.start) for (mul, ir), s in zip(mixed, mixed.slices(), strict=True)]
    paths, rows = _paths(block, sent, summed)
    by_type = [] if block.sc is None else _self_connection(block.sc, embedding)
    described = Layer(
        sent=_channels(sent),
        summed=[place.l for place in summed],
        before_gate=_channels(before),
        radial=_radial(block.edge_mlp),
        paths=paths,
        mix=[
            LinearMap(a, b, matrix[rows[a]])
            for a, b, matrix in _cut(_matrices(block.linear_2), mixed, block.linear_2.irreps_out, summed, before)
        ],
        gate=gate,
        send=[
            LinearMap(a, b, matrix * norm)
            for a, b, matrix in _cut(_matrices(block.linear_1), irreps_in, irreps_in, places_in, sent)
        ],
        self_connection=[
            LinearMap(a, b, matrix)
            for a, b, matrix in _cut(by_type, irreps_in, block.linear_2.irreps_out, places_in, before)
        ],
        residual=layer.resnet,
    )
    return described, out


def _radial(mlp: ScalarMLP) -> RadialNetwork:
    layers = _perceptron(mlp)
    activations = {layer.activation for layer in layers[:-1]} or {"identity"}
    assert len(activations) == 1  # ScalarMLP has one for all hidden layers
    return RadialNetwork([layer.matrix for layer in layers], activations.pop())


def _channels(places: Sequence[_Place]) -> list[Channels]:
    return [Channels(place.l, place.mul) for place in places]


def _gate(gate: Gate | NormActivation) -> tuple[list[_Place], list[GateStep], list[_Place]]:
    """Segments before the gate, its steps, and the segments after it."""
    if isinstance(gate, NormActivation):
        return _norm(gate)
    before: list[_Place] = []
    steps: list[GateStep] = []
    after: list[_Place] = []
    for segment in sorted(gate.problem.segments, key=lambda segment: segment.out):
        l = (segment.dim - 1) // 2
        before.append(_Place(l, segment.mul, segment.x))
        source = len(before) - 1
        if segment.gate >= 0:
            before.append(_Place(0, segment.mul, segment.gate))
        at = len(before) - 1 if segment.gate >= 0 else NO_GATE
        steps.append(GateStep(source, at, segment.activation, segment.constant))
        after.append(_Place(l, segment.mul, segment.out))
    return before, steps, after


def _norm(nonlinearity: NormActivation) -> tuple[list[_Place], list[GateStep], list[_Place]]:
    irreps = nonlinearity.irreps_in
    places = [_Place(ir.l, mul, s.start) for (mul, ir), s in zip(irreps, irreps.slices(), strict=True)]
    name = next(name for name, f in ACTIVATIONS.items() if f is nonlinearity.scalar_nonlinearity)
    return places, [GateStep(i, NORM, name, 1.0) for i in range(len(places))], places


def _paths(
    block: InteractionBlock, sent: Sequence[_Place], summed: Sequence[_Place]
) -> tuple[list[Path], list[Tensor]]:
    """The paths, and for each sum which row of the next matrix each of its channels meets."""
    paths: list[Path] = []
    rows: list[list[Tensor]] = [[] for _ in summed]
    for path in block.tp_scatter.problem.paths:
        if path.y != path.l2**2 or path.w_stride != 1:
            raise InputError("a model whose irreps_edge_sh are not the harmonics 0 … l_max in order cannot be compiled")
        source = next(i for i, place in enumerate(sent) if place.start == path.x)
        target = next(i for i, place in enumerate(summed) if place.start <= path.out < place.end)
        first = (path.out - summed[target].start) // (2 * path.l3 + 1)
        rows[target].append(torch.arange(first, first + path.mul))
        paths.append(Path(source, path.l2, target, path.w, path.coefficient))
    return paths, [torch.cat(of_sum) for of_sum in rows]


def _matrices(linear: Linear) -> list[_Matrix]:
    return [
        (ins.i_in, ins.i_out, view.detach() * ins.path_weight)
        for _, ins, view in linear.weight_views(yield_instruction=True)
    ]


def _self_connection(product: TensorProduct, embedding: Tensor) -> list[_Matrix]:
    """Matrices [types, mul_in, mul_out]; C(l, 0, l) is 1/√(2l + 1)."""
    return [
        (
            ins.i_in1,
            ins.i_out,
            torch.einsum("uvw,tv->tuw", view.detach(), embedding)
            * (ins.path_weight / (2 * product.irreps_out[ins.i_out].ir.l + 1) ** 0.5),
        )
        for _, ins, view in product.weight_views(yield_instruction=True)
    ]


def _cut(
    matrices: Sequence[_Matrix],
    irreps_in: Irreps,
    irreps_out: Irreps,
    rows: Sequence[_Place],
    columns: Sequence[_Place],
) -> list[_Matrix]:
    """Matrices between blocks of irreps as matrices between segments, which are parts of the blocks."""
    starts_in, starts_out = irreps_in.slices(), irreps_out.slices()
    parts: dict[tuple[int, int], Tensor] = {}
    for i, j, matrix in matrices:
        n = irreps_in[i].ir.dim
        for a, row in enumerate(rows):
            for b, column in enumerate(columns):
                if not (starts_in[i].start <= row.start < starts_in[i].stop and row.l == irreps_in[i].ir.l):
                    continue
                if not starts_out[j].start <= column.start < starts_out[j].stop:
                    continue
                u, v = (row.start - starts_in[i].start) // n, (column.start - starts_out[j].start) // n
                part = matrix[..., u : u + row.mul, v : v + column.mul]
                parts[a, b] = parts[a, b] + part if (a, b) in parts else part
    return [(a, b, part.contiguous()) for (a, b), part in parts.items()]


def _perceptron(mlp: ScalarMLP) -> list[ReadoutLayer]:
    layers: list[ReadoutLayer] = []
    modules = list(mlp.mlp) if isinstance(mlp.mlp, nn.Sequential) else [mlp.mlp]
    for module in modules:
        if isinstance(module, ScaledLinear):
            layers.append(ReadoutLayer(module.weight.detach() * module.factor))
        elif isinstance(module, DeepLinear):
            product = torch.linalg.multi_dot([weight.detach() for weight in module.weights])
            layers.append(ReadoutLayer(product * module.factor))
        elif isinstance(module, Activation):
            if module.name not in ACTIVATIONS:
                raise InputError(f"a model with the nonlinearity {module.name!r} in its readout cannot be compiled yet")
            layers[-1] = ReadoutLayer(layers[-1].matrix, module.name)
    return layers


def _readout(mlp: ScalarMLP, places: Sequence[_Place]) -> list[ReadoutLayer]:
    first, *rest = _perceptron(mlp)
    order = torch.cat([torch.arange(place.start, place.end) for place in places])
    return [ReadoutLayer(first.matrix[order], first.activation), *rest]
