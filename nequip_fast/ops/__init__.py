"""Operators: one file each with signature, shapes, plain-torch definition, fake, autograd and dispatch."""

from nequip_fast.ops.attributes import product_with_rows
from nequip_fast.ops.backend import get_backend, set_backend, use_backend
from nequip_fast.ops.conv import conv
from nequip_fast.ops.conv_of_rows import conv_of_hidden, conv_of_table, hermite_coefficients
from nequip_fast.ops.gate import GateProblem, GateSegment, gate
from nequip_fast.ops.graph import Graph, first_of_pair
from nequip_fast.ops.mlp import MlpLayer, MlpProblem, mlp
from nequip_fast.ops.paths import ConvProblem, Path
from nequip_fast.ops.product_paths import ProductPath, ProductProblem
from nequip_fast.ops.radial import radial
from nequip_fast.ops.segment_sum import segment_sum
from nequip_fast.ops.spherical_harmonics import spherical_harmonics
from nequip_fast.ops.tensor_product import tensor_product

__all__ = [
    "ConvProblem",
    "GateProblem",
    "GateSegment",
    "Graph",
    "MlpLayer",
    "MlpProblem",
    "Path",
    "ProductPath",
    "ProductProblem",
    "conv",
    "conv_of_hidden",
    "conv_of_table",
    "first_of_pair",
    "gate",
    "get_backend",
    "hermite_coefficients",
    "mlp",
    "product_with_rows",
    "radial",
    "segment_sum",
    "set_backend",
    "spherical_harmonics",
    "tensor_product",
    "use_backend",
]
