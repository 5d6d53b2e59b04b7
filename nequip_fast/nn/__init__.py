"""Drop-in for ``e3nn.nn``, and the blocks of NequIP; names and state_dict keys follow e3nn.nn and nequip.nn.

BatchNorm, Identity and the activations on grids are e3nn's own: plain torch with nothing to gain.
"""

from e3nn.nn import BatchNorm, Identity, S2Activation, SO3Activation

from nequip_fast.nn.activation import Activation
from nequip_fast.nn.dropout import Dropout
from nequip_fast.nn.embedding import TypeEmbedding
from nequip_fast.nn.extract import Extract, ExtractIr
from nequip_fast.nn.fully_connected_net import FullyConnectedNet
from nequip_fast.nn.gate import Gate
from nequip_fast.nn.interaction import ConvNetLayer, EdgeFeatures, InteractionBlock, LayerSettings
from nequip_fast.nn.mlp import ScalarMLP
from nequip_fast.nn.norm_activation import NormActivation
from nequip_fast.nn.pair_potential import ZBL
from nequip_fast.nn.radial import BesselBasis, EdgeLengthNormalizer
from nequip_fast.nn.scale_shift import PerTypeScaleShift
from nequip_fast.nn.tensor_product_conv import TensorProductConv
from nequip_fast.ops.radial import polynomial_cutoff

__all__ = [
    "ZBL",
    "Activation",
    "BatchNorm",
    "BesselBasis",
    "ConvNetLayer",
    "Dropout",
    "EdgeFeatures",
    "EdgeLengthNormalizer",
    "Extract",
    "ExtractIr",
    "FullyConnectedNet",
    "Gate",
    "Identity",
    "InteractionBlock",
    "LayerSettings",
    "NormActivation",
    "PerTypeScaleShift",
    "S2Activation",
    "SO3Activation",
    "ScalarMLP",
    "TensorProductConv",
    "TypeEmbedding",
    "polynomial_cutoff",
]
