"""The NequIP model, computing the same function as nequip 0.19 for the same arguments and weights.

S. Batzner et al., Nature Communications 13, 2453 (2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from nequip_fast.errors import InputError
from nequip_fast.model.graph_model import EdgeGeometry, GraphModel
from nequip_fast.nn import (
    ZBL,
    BesselBasis,
    ConvNetLayer,
    EdgeFeatures,
    EdgeLengthNormalizer,
    LayerSettings,
    PerTypeScaleShift,
    ScalarMLP,
    TypeEmbedding,
)
from nequip_fast.nn.mlp import ScaledLinear
from nequip_fast.o3 import SphericalHarmonics
from nequip_fast.ops import Graph, first_of_pair


class Readout(nn.Module):
    """The perceptron from the last features to the energy of an atom."""

    def __init__(self, dim_in: int, depth: int, width: int, nonlinearity: str | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.mlp_module = ScalarMLP(dim_in, 1, depth, width, nonlinearity, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[N, dim_in] -> [N, 1]"""
        return self.mlp_module(x)


class NequIP(GraphModel):
    """Embedding, convolution layers, readout. Built by the functions of :mod:`nequip_fast.model.builders`,
    whose docstrings explain the arguments; per-layer arguments are sequences of the same length here.
    """

    def __init__(
        self,
        *,
        type_names: Sequence[str],
        model_dtype: torch.dtype,
        r_max: float,
        per_edge_type_cutoff: Mapping[str, Any] | None,
        irreps_edge_sh: Irreps,
        feature_irreps_hidden: Sequence[Irreps],
        radial_mlp_depth: Sequence[int],
        radial_mlp_width: Sequence[int],
        type_embed_num_features: int,
        categorical_graph_field_embed: Sequence[Mapping[str, Any]] | None,
        num_bessels: int,
        bessel_trainable: bool,
        polynomial_cutoff_p: float,
        avg_num_neighbors: float | Mapping[str, float],
        readout_depth: int,
        readout_width: int | None,
        readout_nonlinearity: str | None,
        scales: float | Mapping[str, float] | None,
        shifts: float | Mapping[str, float] | None,
        scales_trainable: bool,
        shifts_trainable: bool,
        pair_potential: ZBL | None,
        convnet_sc: bool,
        convnet_resnet: bool,
        learnable_shift: bool,
        nonlinearity_type: str,
        nonlinearity_scalars: Mapping[str, str],
        nonlinearity_gates: Mapping[str, str],
        do_derivatives: bool,
        radial_nonlinearity: str = "silu",
        chemical_embedding: int | None = None,
    ) -> None:
        super().__init__(type_names, r_max, model_dtype, do_derivatives)
        self.type_embed = TypeEmbedding(
            len(type_names), type_embed_num_features, categorical_graph_field_embed, model_dtype
        )
        self.spharm = SphericalHarmonics(irreps_edge_sh, True, "component")
        self.edge_norm = EdgeLengthNormalizer(r_max, type_names, per_edge_type_cutoff)
        self.bessel_encode = BesselBasis(
            num_bessels, polynomial_cutoff_p, 2.0 * math.pi / r_max**2, bessel_trainable, model_dtype
        )
        settings = LayerSettings(
            irreps_edge_sh,
            num_bessels,
            self.type_embed.dim,
            type_names,
            avg_num_neighbors,
            nonlinearity_type,
            nonlinearity_scalars,
            nonlinearity_gates,
            model_dtype,
            radial_nonlinearity,
        )
        irreps = Irreps([(self.type_embed.dim, (0, 1))])
        self.chemical_embedding = None
        if chemical_embedding is not None:
            factor = self.type_embed.dim**-0.5
            self.chemical_embedding = ScaledLinear(self.type_embed.dim, chemical_embedding, factor, model_dtype)
            irreps = Irreps([(chemical_embedding, (0, 1))])
        self.num_layers = len(feature_irreps_hidden)
        for i, (hidden, depth, width) in enumerate(
            zip(feature_irreps_hidden, radial_mlp_depth, radial_mlp_width, strict=True)
        ):
            # Without them in the first layer the energy of an isolated atom is exactly its shift.
            allowed = learnable_shift or i > 0
            layer = ConvNetLayer(
                irreps, hidden, settings, depth, width, convnet_sc and allowed, convnet_resnet and allowed
            )
            irreps = layer.irreps_out
            self.add_module(f"layer{i}_convnet", layer)
        even = [
            torch.arange(irreps.dim)[block]
            for (_, ir), block in zip(irreps, irreps.slices(), strict=True)
            if ir.is_scalar()
        ]
        if not even or (len(irreps) != 1 and chemical_embedding is None):
            raise InputError(
                f"the last layer must give even scalars only, but gives {irreps}; see feature_irreps_hidden"
            )
        self.register_buffer("_even", torch.cat(even), persistent=False)
        self._even: Tensor
        if readout_width is None:
            readout_width = Irreps(feature_irreps_hidden[-1]).dim
        self.per_atom_energy_readout = Readout(
            len(self._even), readout_depth, readout_width, readout_nonlinearity, model_dtype
        )
        self.per_type_energy_scale_shift = PerTypeScaleShift(
            type_names, scales, shifts, scales_trainable, shifts_trainable
        )
        self.pair_potential = pair_potential
        _keep_weights_alone(self)

    @property
    def layers(self) -> list[ConvNetLayer]:
        """The convolution layers in order; as modules they are ``layer0_convnet``, ``layer1_convnet``, …"""
        return [self.get_submodule(f"layer{i}_convnet") for i in range(self.num_layers)]  # type: ignore[misc]

    def atomic_energies(self, geometry: EdgeGeometry) -> Tensor:
        types, edge_index = geometry.types, geometry.edge_index
        attributes = self.type_embed(types, geometry.data, geometry.batch)
        x = attributes.values
        if self.chemical_embedding is not None:
            x = self.chemical_embedding(x)
        normalized = self.edge_norm(geometry.lengths, types, edge_index)
        graph = Graph.from_edge_index(edge_index, types.shape[0])
        edges = EdgeFeatures(
            graph,
            self.spharm(geometry.vectors).to(self.model_dtype),
            self.bessel_encode(normalized),
            # forces and stress take the gradients by the vectors of both edges of a pair together
            first_of_pair(graph, geometry.vectors.detach(), normalized),
        )
        for layer in self.layers:
            x = layer(x, attributes, types, edges)
        if x.shape[1] != len(self._even):
            x = x[:, self._even]
        energy = self.per_type_energy_scale_shift(self.per_atom_energy_readout(x), types)
        if self.pair_potential is not None:
            energy = energy + self.pair_potential(geometry.lengths, normalized, types, edge_index)
        return energy


def _keep_weights_alone(module: nn.Module) -> None:
    """Leave the masks and the empty tensors that e3nn's modules register out of state dicts, and so out of files."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if name == "output_mask" or not buffer.numel():
                part.register_buffer(name, buffer, persistent=False)
