"""One layer of NequIP: convolution over neighbours with learned radial weights, then a nonlinearity.

S. Batzner et al., Nature Communications 13, 2453 (2022); details as in nequip 0.19.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor, nn

from nequip_fast.dtypes import default_dtype
from nequip_fast.errors import InputError
from nequip_fast.nn.activation_names import activation
from nequip_fast.nn.embedding import NodeAttributes
from nequip_fast.nn.mlp import ScalarMLP
from nequip_fast.nn.model_gate import Gate
from nequip_fast.nn.norm_activation import NormActivation
from nequip_fast.nn.scale_shift import per_type_values
from nequip_fast.nn.tensor_product_conv import TensorProductConv
from nequip_fast.o3 import FullyConnectedTensorProduct, Linear
from nequip_fast.ops import Graph

_DEFAULT_ACTIVATIONS = {"e": "silu", "o": "tanh"}
GATE_ACTIVATIONS = ("abs", "tanh", "ssp", "silu")


@dataclass(frozen=True)
class LayerSettings:
    """What all layers share. ``edge_dim`` radial features, ``attribute_dim`` node attributes."""

    irreps_edge_sh: Irreps
    edge_dim: int
    attribute_dim: int
    type_names: Sequence[str]
    avg_num_neighbors: float | Mapping[str, float]
    nonlinearity_type: str = "gate"
    nonlinearity_scalars: Mapping[str, str] = field(default_factory=lambda: dict(_DEFAULT_ACTIVATIONS))
    nonlinearity_gates: Mapping[str, str] = field(default_factory=lambda: dict(_DEFAULT_ACTIVATIONS))
    dtype: torch.dtype = torch.float32
    radial_nonlinearity: str = "silu"


class EdgeFeatures(NamedTuple):
    """What all layers are told about the edges."""

    graph: Graph
    harmonics: Tensor  # [E, (l_max + 1)²]
    radial: Tensor  # [E, edge_dim]
    first_of_pair: Tensor | None  # see ops.first_of_pair; of two edges with the same radial features one is looked at


class InteractionBlock(nn.Module):
    """``linear_2(Σ_neighbours (linear_1 x / √n) ⊗ Y · MLP(radial)) + sc(x, attributes)``.

    The division by the average number of neighbours acts on the senders, before the product: given per type,
    it is looked up by the type of the neighbour.

    Args:
        irreps_in, irreps_out: node features before and after.
        settings: what all layers share.
        radial_mlp_depth, radial_mlp_width: hidden layers of the radial network.
        use_sc: whether to add the self-connection.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        settings: LayerSettings,
        radial_mlp_depth: int,
        radial_mlp_width: int,
        use_sc: bool,
    ) -> None:
        super().__init__()
        dtype = settings.dtype
        neighbours = per_type_values("avg_num_neighbors", settings.avg_num_neighbors, settings.type_names)
        if not min(neighbours) > 0:
            raise InputError("avg_num_neighbors must be positive; is r_max shorter than every distance in the data?")
        norm = torch.tensor([1.0 / math.sqrt(n) for n in neighbours], dtype=dtype).unsqueeze(1)
        self.register_buffer("_norm", norm, persistent=False)
        self._norm: Tensor

        # in this order the random initial weights are those of nequip for the same seed
        with default_dtype(dtype):
            self.linear_1 = Linear(irreps_in, irreps_in)
        self.tp_scatter = tensor_product_conv(irreps_in, settings.irreps_edge_sh, irreps_out)
        widths = settings.edge_dim, self.tp_scatter.weight_numel, radial_mlp_depth, radial_mlp_width
        self.edge_mlp = ScalarMLP(*widths, settings.radial_nonlinearity, dtype)
        attributes = Irreps([(settings.attribute_dim, (0, 1))])
        with default_dtype(dtype):
            self.linear_2 = Linear(self.tp_scatter.irreps_out.simplify(), irreps_out)
            self.sc = FullyConnectedTensorProduct(irreps_in, attributes, irreps_out) if use_sc else None

    def forward(self, x: Tensor, attributes: NodeAttributes, types: Tensor, edges: EdgeFeatures) -> Tensor:
        """Node features [N, irreps_in.dim] -> [N, irreps_out.dim].

        Args:
            attributes: of the atoms, attribute_dim each.
            types: [N].
            edges: what the network sees of them.
        """
        weights = self.edge_mlp(edges.radial, edges.first_of_pair)
        messages = self.linear_1(x) * (self._norm if self._norm.shape[0] == 1 else self._norm[types])
        out = self.linear_2(self.tp_scatter(messages, edges.harmonics, weights, edges.graph))
        if self.sc is None:
            return out
        values, table, row = attributes
        return out + (self.sc(x, values) if table is None or row is None else self.sc.with_rows(x, table, row))


class ConvNetLayer(nn.Module):
    """Interaction, nonlinearity, and a residual sum where the irreps allow it.

    Args:
        irreps_in: node features that come in.
        irreps_hidden: those wanted out; the ones that no path reaches are left out (see ``irreps_out``).
        settings: what all layers share.
        radial_mlp_depth, radial_mlp_width: hidden layers of the radial network.
        use_sc: self-connection.
        resnet: add the input to the output if both have the same irreps.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_hidden: Irreps,
        settings: LayerSettings,
        radial_mlp_depth: int,
        radial_mlp_width: int,
        use_sc: bool,
        resnet: bool,
    ) -> None:
        super().__init__()
        reachable = [(mul, ir) for mul, ir in irreps_hidden if path_exists(irreps_in, settings.irreps_edge_sh, ir)]
        scalars = Irreps([(mul, ir) for mul, ir in reachable if ir.l == 0])
        gated = Irreps([(mul, ir) for mul, ir in reachable if ir.l > 0])
        features = (scalars + gated).simplify()
        scalar_activations = _by_parity("convnet_nonlinearity_scalars", settings.nonlinearity_scalars)
        gate_activations = _by_parity("convnet_nonlinearity_gates", settings.nonlinearity_gates)
        self.equivariant_nonlin: Gate | NormActivation
        if settings.nonlinearity_type == "gate":
            gate_parity = 1 if path_exists(irreps_in, settings.irreps_edge_sh, Irrep("0e")) else -1
            self.equivariant_nonlin = Gate(scalars, gated, gate_parity, scalar_activations, gate_activations)
        elif settings.nonlinearity_type == "norm":
            with default_dtype(settings.dtype):
                self.equivariant_nonlin = NormActivation(features, activation(scalar_activations[1]))
        else:
            raise InputError(f"convnet_nonlinearity_type must be gate or norm, not {settings.nonlinearity_type!r}")
        self.resnet = resnet and features == irreps_in
        self.irreps_out = self.equivariant_nonlin.irreps_out
        self.conv = InteractionBlock(
            irreps_in, self.equivariant_nonlin.irreps_in, settings, radial_mlp_depth, radial_mlp_width, use_sc
        )

    def forward(self, x: Tensor, attributes: NodeAttributes, types: Tensor, edges: EdgeFeatures) -> Tensor:
        """As :meth:`InteractionBlock.forward`."""
        y = self.equivariant_nonlin(self.conv(x, attributes, types, edges))
        return x + y if self.resnet else y


def tensor_product_conv(irreps_in: Irreps, irreps_edge_sh: Irreps, irreps_out: Irreps) -> TensorProductConv:
    """The convolution with every path from ``irreps_in`` x ``irreps_edge_sh`` into an irrep of ``irreps_out``.

    Its weights follow the loop over input, edge and output irreps; its outputs are sorted, so that equal irreps
    are neighbours and the next linear layer can treat them as one block.
    """
    paths = [
        (i, j, mul, ir_out)
        for i, (mul, ir_in) in enumerate(irreps_in)
        for j, (_, ir_edge) in enumerate(irreps_edge_sh)
        for ir_out in ir_in * ir_edge
        if ir_out in irreps_out
    ]
    order = sorted(range(len(paths)), key=lambda k: (paths[k][3], k))
    position = {k: at for at, k in enumerate(order)}
    return TensorProductConv(
        irreps_in,
        irreps_edge_sh,
        Irreps([(paths[k][2], paths[k][3]) for k in order]),
        [(i, j, position[k]) for k, (i, j, _, _) in enumerate(paths)],
    )


def path_exists(irreps_1: Irreps, irreps_2: Irreps, ir_out: Irrep) -> bool:
    """Whether the product of some pair of irreps contains ``ir_out``."""
    return any(ir_out in ir_1 * ir_2 for mul_1, ir_1 in irreps_1 for mul_2, ir_2 in irreps_2 if mul_1 and mul_2)


def _by_parity(argument: str, names: Mapping[str, str]) -> dict[int, str]:
    if set(names) != {"e", "o"}:
        raise InputError(f"{argument} needs exactly the keys 'e' and 'o', found {', '.join(map(repr, names))}")
    for name in names.values():
        activation(name)
        if name not in GATE_ACTIVATIONS:
            raise InputError(f"{argument}: {name!r} is not one of {', '.join(GATE_ACTIVATIONS)}")
    return {1: names["e"], -1: names["o"]}
