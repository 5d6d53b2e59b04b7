"""Drop-in for ``e3nn.o3.Norm``."""

from __future__ import annotations

import torch
from e3nn import o3
from e3nn.util.jit import compile_mode
from torch import Tensor

from nequip_fast.o3.tensor_product import TensorProduct


@compile_mode("unsupported")
class Norm(torch.nn.Module):
    """``e3nn.o3.Norm``: the norm of each copy of each irrep, all of them in one product; gradient zero at zero.

    Args:
        irreps_in: merged where neighbours are equal.
        squared: give the squares.

    Shapes: [..., irreps_in.dim] -> [..., irreps_in.num_irreps].
    """

    def __init__(self, irreps_in: o3.Irreps | str, squared: bool = False) -> None:
        super().__init__()
        irreps_in = o3.Irreps(irreps_in).simplify()
        irreps_out = o3.Irreps([(mul, "0e") for mul, _ in irreps_in])
        # path weight dim² / dim, against 1 / √dim in the Clebsch-Gordan coefficients of a scalar product
        instructions = [(i, i, i, "uuu", False, ir.dim) for i, (_, ir) in enumerate(irreps_in)]
        self.tp = TensorProduct(irreps_in, irreps_in, irreps_out, instructions, irrep_normalization="component")
        self.irreps_in, self.irreps_out = irreps_in, irreps_out.simplify()
        self.squared = squared

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.irreps_in})"

    def forward(self, features: Tensor) -> Tensor:
        """See the class for shapes."""
        squares = self.tp(features, features)
        return squares if self.squared else squares.relu().sqrt()  # relu's derivative is 0 at 0, and so the norm's
