"""e3nn's tensor products with instructions of their own: who multiplies whom is inherited, how is ours.

The constructors only say e3nn's arguments again, but with types: e3nn has none, and a type checker would take those
of :class:`TensorProduct` for them and refuse right calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from e3nn import o3
from torch import Tensor

from nequip_fast.o3.errors import require
from nequip_fast.o3.tensor_product import TensorProduct
from nequip_fast.ops import product_with_rows


class FullyConnectedTensorProduct(o3.FullyConnectedTensorProduct, TensorProduct):
    """``e3nn.o3.FullyConnectedTensorProduct``: every allowed path, channels fully mixed ("uvw").

    Further arguments as of :class:`TensorProduct`.
    """

    def __init__(
        self,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        irrep_normalization: str | None = None,
        path_normalization: str | None = None,
        **kwargs: Any,
    ) -> None:
        o3.FullyConnectedTensorProduct.__init__(
            self, irreps_in1, irreps_in2, irreps_out, irrep_normalization, path_normalization, **kwargs
        )

    def with_rows(self, x: Tensor, table: Tensor, row: Tensor) -> Tensor:
        """``forward(x, table[row])`` for attributes of which many are the same, as those of atoms of one type.

        Where they are scalars and the weights shared, these are contracted with each row of the table once, which makes
        derivatives in particular cheaper by far (:func:`~nequip_fast.ops.attributes.product_with_rows`).

        Args:
            x: [B, irreps_in1.dim].
            table: [rows, irreps_in2.dim], best without rows that nobody names.
            row: [B] int64.

        Returns:
            [B, irreps_out.dim].
        """
        if not self.internal_weights or self.weight_numel == 0:
            return self.forward(x, table.index_select(0, row))
        return product_with_rows(x, table, row, self.weight, self.problem)


class ElementwiseTensorProduct(o3.ElementwiseTensorProduct, TensorProduct):
    """``e3nn.o3.ElementwiseTensorProduct``: copy u of the one times copy u of the other ("uuu"), no weights.

    Args:
        filter_ir_out: irreps to keep in the output; None for all.
    """

    def __init__(
        self,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        filter_ir_out: Iterable[Any] | None = None,
        irrep_normalization: str | None = None,
        **kwargs: Any,
    ) -> None:
        counts = [o3.Irreps(irreps).num_irreps for irreps in (irreps_in1, irreps_in2)]
        require(counts[0] == counts[1], f"an elementwise product needs as many irreps on both sides, got {counts}")
        o3.ElementwiseTensorProduct.__init__(self, irreps_in1, irreps_in2, filter_ir_out, irrep_normalization, **kwargs)


class FullTensorProduct(o3.FullTensorProduct, TensorProduct):
    """``e3nn.o3.FullTensorProduct``: every copy times every copy ("uvuv"), no weights.

    Args:
        filter_ir_out: irreps to keep in the output; None for all.
    """

    def __init__(
        self,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        filter_ir_out: Iterable[Any] | None = None,
        irrep_normalization: str | None = None,
        **kwargs: Any,
    ) -> None:
        o3.FullTensorProduct.__init__(self, irreps_in1, irreps_in2, filter_ir_out, irrep_normalization, **kwargs)


class TensorSquare(o3.TensorSquare, TensorProduct):
    """``e3nn.o3.TensorSquare``: a tensor times itself; weightless and full without ``irreps_out``, else mixed fully.

    Shapes: x [..., irreps_in.dim] -> [..., irreps_out.dim].
    """

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_out: o3.Irreps | str | None = None,
        filter_ir_out: Iterable[Any] | None = None,
        irrep_normalization: str | None = None,
        **kwargs: Any,
    ) -> None:
        o3.TensorSquare.__init__(self, irreps_in, irreps_out, filter_ir_out, irrep_normalization, **kwargs)

    def forward(self, x: Tensor, weight: Tensor | list[Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """:math:`w x ⊗ x`; weights as of :class:`TensorProduct`."""
        return TensorProduct.forward(self, x, x, weight)
