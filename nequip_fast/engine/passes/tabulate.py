"""The radial networks as tables: the weights of a layer are functions of r/r_c alone, whatever the elements.

Quintic Hermite interpolation between knots that are as dense as each layer's functions ask for. It needs a seventh of
the knots of a cubic one, so that a path's table stays in a near cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from nequip_fast.engine.program import Envelope, Program, RadialNetwork, RadialTable
from nequip_fast.engine.radial import TOO_CLOSE, hermite_table, radial_function, table_errors

_LOOKED_AT = 64  # intervals of a piece from whose errors the density of knots follows
_SPARSEST = 1 / 8  # knots for one of these
_MOST = 8192
_ERROR = {torch.float32: 7e-8, torch.float64: 5e-10}  # as error_weights counts it


def tabulate(program: Program, dtype: torch.dtype, intervals: int | None = None) -> tuple[Program, list[float]]:
    """The program with tables for its radial networks, and the error of each layer's.

    Args:
        dtype: of the network; the error is made small beside its rounding.
        intervals: of the tables; None: as few as do.
    """
    close, pieces = TOO_CLOSE / float(program.cutoff.max()), _pieces(program.basis.envelope)
    layers, errors = [], []
    for layer in program.layers:
        assert isinstance(layer.radial, RadialNetwork)
        function = radial_function(program.basis, layer.radial)
        knots, error = _knots(function, pieces, close, _ERROR[dtype], intervals)
        table = RadialTable(knots, hermite_table(function, knots), layer.radial)
        layers.append(replace(layer, radial=table))
        errors.append(error)
    return replace(program, layers=layers), errors


def _pieces(envelope: Envelope) -> list[tuple[float, float]]:
    """Where it is smooth: from … to, 0 … 1 in all; a piece ends at the last number before the next one begins."""
    if envelope.kind != "xplor":
        return [(0.0, 1.0)]
    return [(0.0, math.nextafter(envelope.parameter, 0.0)), (envelope.parameter, 1.0)]


def _knots(
    function: Callable[[Tensor], Tensor],
    pieces: Sequence[tuple[float, float]],
    close: float,
    tolerance: float,
    intervals: int | None,
) -> tuple[Tensor, float]:
    """The knots, ``intervals`` of them or as many as keep the errors below the tolerance, and the largest error."""
    equal = [torch.linspace(*ends, _LOOKED_AT + 1, dtype=torch.float64) for ends in pieces]
    found = torch.stack([table_errors(function, piece, close) for piece in equal])
    needed = (found / tolerance) ** (1 / 5)  # slopes, whose error is of fifth order, decide as a rule
    needed = max_pool1d(needed.unsqueeze(1), 3, 1, 1).squeeze(1).clamp(min=_SPARSEST)
    factor = 1.0 if intervals is None else intervals / float(needed.sum())
    knots = torch.cat([_placed(piece, factor * density) for piece, density in zip(equal, needed, strict=True)])
    while True:
        errors = table_errors(function, knots, close)
        large = errors > tolerance
        if intervals is not None or not large.any() or len(knots) > _MOST:
            return knots, float(errors.max())
        middles = (knots[:-1] + 0.5 * knots.diff())[large]
        knots = torch.cat([knots, middles]).unique()


def _placed(piece: Tensor, density: Tensor) -> Tensor:
    """Knots from the first to the last of ``piece`` [n + 1], about ``density`` [n] of them in each of its intervals."""
    total = torch.cat([density.new_zeros(1), density.cumsum(0)])
    count = max(1, math.ceil(float(total[-1]) - 1e-9))
    placed = np.interp(np.linspace(0, float(total[-1]), count + 1), total.numpy(), piece.numpy())
    placed[0], placed[-1] = piece[0], piece[-1]
    return torch.from_numpy(placed)
