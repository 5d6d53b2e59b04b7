"""Building blocks of equivariant networks; names and state_dict keys follow e3nn.nn and nequip.nn."""

from nequip_fast.nn.embedding import TypeEmbedding
from nequip_fast.nn.gate import Gate, NormActivation
from nequip_fast.nn.interaction import ConvNetLayer, InteractionBlock, LayerSettings, NodeAttributes
from nequip_fast.nn.linear import Linear
from nequip_fast.nn.mlp import ScalarMLP
from nequip_fast.nn.pair_potential import ZBL
from nequip_fast.nn.radial import BesselBasis, EdgeLengthNormalizer, polynomial_cutoff
from nequip_fast.nn.scale_shift import PerTypeScaleShift
from nequip_fast.nn.self_connection import SelfConnection
from nequip_fast.nn.tensor_product_conv import TensorProductConv

__all__ = [
    "ZBL",
    "BesselBasis",
    "ConvNetLayer",
    "EdgeLengthNormalizer",
    "Gate",
    "InteractionBlock",
    "LayerSettings",
    "Linear",
    "NodeAttributes",
    "NormActivation",
    "PerTypeScaleShift",
    "ScalarMLP",
    "SelfConnection",
    "TensorProductConv",
    "TypeEmbedding",
    "polynomial_cutoff",
]
