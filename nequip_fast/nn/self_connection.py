"""The self-connection: a linear layer whose weights depend on the atom's attributes."""

from __future__ import annotations

import math

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from nequip_fast.nn.mixing import block_dims, components_last, fan_in, mixing_paths, sum_into_blocks


class SelfConnection(nn.Module):
    """``e3nn.o3.FullyConnectedTensorProduct(irreps_in, "V x 0e", irreps_out)``: same maths, weights, initialisation.

    ``y[n, w, m] = Σ_uv x[n, u, m] a[n, v] W[u, v, w] / √(fan-in · V)``, one matrix product per irrep over (u, v).

    ``weight`` is flat: one (mul_in, V, mul_out) block per pair of equal irreps, input-major.

    Args:
        irreps_in, irreps_out: features before and after.
        num_attributes: V, the number of scalar attributes of an atom.
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        num_attributes: int,
        irreps_out: Irreps | str,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self.num_attributes = num_attributes
        self._paths = mixing_paths(self.irreps_in, self.irreps_out)
        self._sizes = [path.mul_in * num_attributes * path.mul_out for path in self._paths]
        self._factors = [
            1.0 / math.sqrt(max(fan_in(self._paths, path.i_out) * num_attributes, 1)) for path in self._paths
        ]
        self._dims_in = block_dims(self.irreps_in)
        self.weight = nn.Parameter(torch.randn(sum(self._sizes), dtype=dtype)) if sum(self._sizes) else None

    def forward(self, x: Tensor, selector: Tensor, table: Tensor | None = None) -> Tensor:
        """Apply the layer.

        Args:
            x: [N, irreps_in.dim].
            selector: [N, K]. Without ``table`` the attributes themselves (K = V).
            table: [K, V]; then the attributes are ``selector @ table``. With a one-hot ``selector`` over K types and
                their embeddings as ``table`` the weights are contracted once per type, V/K times less work per atom.

        Returns:
            [N, irreps_out.dim]
        """
        blocks = x.split(self._dims_in, dim=1)
        terms = []
        weights = () if self.weight is None else self.weight.split(self._sizes)
        for path, weight, factor in zip(self._paths, weights, self._factors, strict=False):
            dim = self.irreps_in[path.i_in].ir.dim
            matrices = weight.view(path.mul_in, self.num_attributes, path.mul_out)
            if table is None:
                matrix = (matrices * factor).flatten(0, 1)
            else:
                matrix = torch.matmul(table * factor, matrices).flatten(0, 1)  # [u, K, w]
            channels = components_last(blocks[path.i_in], dim)
            pairs = (channels.unsqueeze(-1) * selector[:, None, None, :]).flatten(2)  # [N, dim, u·K]
            y = (pairs @ matrix).transpose(1, 2).flatten(1)
            terms.append((path.i_out, y))
        return sum_into_blocks(terms, self.irreps_out, x)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} x {self.num_attributes}x0e -> {self.irreps_out}"
