"""A NequIP model as a :class:`~nequip_fast.engine.program.Program`: every constant folded into plain matrices.

The self-connection is contracted with each type's embedding, and the average number of neighbours goes into the first
linear layer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nequip_fast.engine.interaction import (
    Gating,
    Interaction,
    Place,
    linear_matrices,
    places,
    product_matrices,
    scalars,
)
from nequip_fast.engine.program import (
    NO_GATE,
    NORM,
    Channels,
    Envelope,
    GateStep,
    Layer,
    LinearMap,
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
from nequip_fast.nn.mlp import Activation, DeepLinear, ScaledLinear
from nequip_fast.nn.model_gate import Gate
from nequip_fast.nn.norm_activation import NormActivation
from nequip_fast.ops.gate import ACTIVATIONS


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
        self.model.do_derivatives = True
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
    attributes = model.type_embed.embed_module.weight.detach()
    embedding = attributes
    if model.chemical_embedding is not None:
        embedding = attributes @ (model.chemical_embedding.weight.detach() * model.chemical_embedding.factor)
    basis = model.bessel_encode
    layers: list[Layer] = []
    features: Sequence[Place] = [Place(0, embedding.shape[1], 0)]
    for layer in model.layers:
        interaction = _interaction(layer, attributes)
        layers.append(interaction.layer(features))
        features = interaction.gating.after
    layers[-1], features = _scalars_alone(layers[-1], features, model._even)
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
        readout=_readout(model.per_atom_energy_readout.mlp_module, features, model._even),
        scale=_per_type(energy.scales, 1.0, types),
        shift=_per_type(energy.shifts, 0.0, types),
        repulsion=None if model.pair_potential is None else _repulsion(model.pair_potential),
    )


def _scalars_alone(layer: Layer, features: Sequence[Place], even: Tensor) -> tuple[Layer, list[Place]]:
    """The last layer without the features that no energy is read from; ``even`` are those that are.

    A residual sum then goes into the readout: it reads from the input as well, which passes the gate unchanged.
    """
    wanted = [i for i, place in enumerate(features) if place.l == 0 and place.start in even.tolist()]
    kept = [features[i] for i in wanted]
    gate = [layer.gate[i] for i in wanted]
    if not layer.residual or len(wanted) == len(features):
        return replace(layer, gate=gate), kept
    first, connection = len(layer.before_gate), list(layer.self_connection)
    types = {linear.matrix.shape[0] for linear in connection if linear.matrix.dim() == 3}
    for number, (i, place) in enumerate(zip(wanted, kept, strict=True)):
        same = torch.eye(place.mul, dtype=torch.float64)
        connection.append(LinearMap(i, first + number, same.expand(*types, -1, -1) if types else same))
        gate.append(GateStep(first + number, NO_GATE, "identity", 1.0))
    before = [*layer.before_gate, *(Channels(0, place.mul) for place in kept)]
    carried = replace(layer, before_gate=before, self_connection=connection, gate=gate, residual=False)
    return carried, [*kept, *kept]


def _repulsion(zbl: ZBL) -> Repulsion:
    return Repulsion(float(zbl._qqr2exesquare), zbl.polynomial_cutoff_p, zbl.atomic_numbers.detach())


def _in_float64(model: NequIP) -> NequIP:
    model = copy.deepcopy(model).double()
    model.bessel_encode.dtype = torch.float64
    return model


def _per_type(values: Tensor | None, default: float, types: int) -> Tensor:
    if values is None:
        return torch.full((types,), default, dtype=torch.float64)
    return values.detach().flatten().expand(types).clone()


def _interaction(layer: ConvNetLayer, attributes: Tensor) -> Interaction:
    block = layer.conv
    return Interaction(
        irreps_in=block.linear_1.irreps_in,
        first=linear_matrices(block.linear_1),
        factor=block._norm.unsqueeze(1) if block._norm.numel() > 1 else block._norm,  # [types, 1, 1], or one number
        convolution=block.tp_scatter.problem,
        radial=_radial(block.edge_mlp),
        irreps_summed=block.tp_scatter.irreps_out.simplify(),
        second=linear_matrices(block.linear_2),
        connection=[] if block.sc is None else product_matrices(block.sc, attributes),
        irreps_out=block.linear_2.irreps_out,
        gating=_gating(layer.equivariant_nonlin),
        residual=layer.resnet,
    )


def _radial(mlp: ScalarMLP) -> RadialNetwork:
    layers = _perceptron(mlp)
    activations = {layer.activation for layer in layers[:-1]} or {"identity"}
    assert len(activations) == 1  # ScalarMLP has one for all hidden layers
    return RadialNetwork([layer.matrix for layer in layers], activations.pop())


def _gating(nonlinearity: Gate | NormActivation) -> Gating:
    if isinstance(nonlinearity, Gate):
        return Gating.of_segments(nonlinearity.problem.segments)
    segments = places(nonlinearity.irreps_in)
    name = next(name for name, f in ACTIVATIONS.items() if f is nonlinearity.scalar_nonlinearity)
    return Gating(segments, [GateStep(i, NORM, name, 1.0) for i in range(len(segments))], segments)


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


def _readout(mlp: ScalarMLP, segments: Sequence[Place], even: Tensor) -> list[ReadoutLayer]:
    first, *rest = _perceptron(mlp)
    return [ReadoutLayer(first.matrix[torch.searchsorted(even, scalars(segments))], first.activation), *rest]
