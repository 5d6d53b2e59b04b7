"""The equivariant linear layer."""

from __future__ import annotations

import math

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from nequip_fast.nn.mixing import block_dims, components_last, fan_in, mixing_paths, sum_into_blocks


class Linear(nn.Module):
    """Mixes the channels of each irrep; the maths, weight layout and initialisation of ``e3nn.o3.Linear``.

    ``y[n, w, m] = Σ_u x[n, u, m] W[u, w] / √(fan-in)`` for every irrep that both sides have; output irreps
    without an input are zero. ``weight`` is flat: one (mul_in, mul_out) block per pair, input-major.

    Shapes: [N, irreps_in.dim] -> [N, irreps_out.dim].
    """

    def __init__(self, irreps_in: Irreps | str, irreps_out: Irreps | str, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self._paths = mixing_paths(self.irreps_in, self.irreps_out)
        self._sizes = [path.mul_in * path.mul_out for path in self._paths]
        self._factors = [1.0 / math.sqrt(max(fan_in(self._paths, path.i_out), 1)) for path in self._paths]
        self._dims_in = block_dims(self.irreps_in)
        self.weight = nn.Parameter(torch.randn(sum(self._sizes), dtype=dtype)) if sum(self._sizes) else None

    def forward(self, x: Tensor) -> Tensor:
        blocks = x.split(self._dims_in, dim=1)
        terms = []
        weights = () if self.weight is None else self.weight.split(self._sizes)
        for path, weight, factor in zip(self._paths, weights, self._factors, strict=False):
            matrix = weight.view(path.mul_in, path.mul_out) * factor
            dim = self.irreps_in[path.i_in].ir.dim
            if dim == 1:
                y = blocks[path.i_in] @ matrix
            else:
                y = (components_last(blocks[path.i_in], dim) @ matrix).transpose(1, 2).flatten(1)
            terms.append((path.i_out, y))
        return sum_into_blocks(terms, self.irreps_out, x)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"
