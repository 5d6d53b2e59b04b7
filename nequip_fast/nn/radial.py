"""Edge lengths as radial features: normalisation by the cutoff, Bessel functions, a smooth envelope.

Everything here is float64; the features are cast to the model's precision once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nequip_fast.errors import InputError, nearest
from nequip_fast.ops.radial import radial


def check_cutoff_exponent(p: float) -> float:
    """``p`` as a float, if the envelope is twice differentiable at the origin."""
    if not p >= 2:
        raise InputError(f"polynomial_cutoff_p={p}: the exponent must be at least 2")
    return float(p)


def cutoff_table(
    per_edge_type_cutoff: Mapping[str, float | Mapping[str, float]], type_names: Sequence[str], r_max: float
) -> Tensor:
    """Cutoff in Å by (centre type, neighbour type) [T, T]; pairs that are not given have ``r_max``.

    Args:
        per_edge_type_cutoff: ``{"H": 2.0, "C": {"H": 4.0}}``: by type of the centre, then of the neighbour.
    """
    table = torch.full((len(type_names), len(type_names)), r_max, dtype=torch.float64)
    index = {name: i for i, name in enumerate(type_names)}

    def row(name: str) -> int:
        if name not in index:
            raise InputError(
                f"per_edge_type_cutoff names {name!r}, which is not in type_names{nearest(name, type_names)}"
            )
        return index[name]

    for centre, entry in per_edge_type_cutoff.items():
        if isinstance(entry, Mapping):
            for neighbour, cutoff in entry.items():
                table[row(centre), row(neighbour)] = float(cutoff)
        else:
            table[row(centre)] = float(entry)
    if not bool(((table > 0) & (table <= r_max)).all()):
        raise InputError(f"per_edge_type_cutoff: every cutoff must be positive and at most r_max = {r_max}")
    return table


class EdgeLengthNormalizer(nn.Module):
    """Edge length over its cutoff: one cutoff, or one per pair of types (centre, neighbour)."""

    def __init__(
        self,
        r_max: float,
        type_names: Sequence[str],
        per_edge_type_cutoff: Mapping[str, float | Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__()
        self.num_types = len(type_names)
        self.per_edge_type = per_edge_type_cutoff is not None
        if per_edge_type_cutoff is None:
            reciprocal = torch.tensor(1.0 / r_max, dtype=torch.float64)
        else:
            reciprocal = cutoff_table(per_edge_type_cutoff, type_names, r_max).reciprocal().flatten()
        self.register_buffer("_rmax_recip", reciprocal)
        self._rmax_recip: Tensor

    def forward(self, lengths: Tensor, types: Tensor, edge_index: Tensor) -> Tensor:
        """Lengths [E, 1] of edges [2, E] (row 0 the centre), atoms of ``types`` [N] -> [E, 1], 1 at the cutoff."""
        if not self.per_edge_type:
            return lengths * self._rmax_recip
        centre, neighbour = types[edge_index]
        return lengths * self._rmax_recip[centre * self.num_types + neighbour].unsqueeze(-1)


class BesselBasis(nn.Module):
    """``sin(π n x) / (π x)`` for n = 1 … num_bessels, times the envelope and a constant factor.

    Args:
        num_bessels: number of functions.
        p: exponent of :func:`polynomial_cutoff`.
        factor: multiplies the basis.
        trainable: whether the roots ``n`` are parameters.
        dtype: of the output; the arithmetic is float64.
    """

    def __init__(self, num_bessels: int, p: float, factor: float, trainable: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.p, self.factor, self.dtype = check_cutoff_exponent(p), factor, dtype
        roots = torch.arange(1, num_bessels + 1, dtype=torch.float64).unsqueeze(0)
        if trainable:
            self.bessel_weights = nn.Parameter(roots)
        else:
            self.register_buffer("bessel_weights", roots)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised lengths [E, 1] float64, not zero -> features [E, num_bessels]."""
        return radial(x, self.bessel_weights.squeeze(0).double(), self.p, self.factor, self.dtype)

    def extra_repr(self) -> str:
        return f"{self.bessel_weights.shape[1]}, p={self.p:g}"
