"""Building blocks of equivariant networks; names and state_dict keys follow e3nn.nn and nequip.nn."""

from nequip_fast.nn.tensor_product_conv import TensorProductConv

__all__ = ["TensorProductConv"]
