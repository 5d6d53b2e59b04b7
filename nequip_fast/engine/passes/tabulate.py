"""The radial networks as tables: the weights of a layer are functions of r/r_c alone, whatever the elements.

Cubic Hermite interpolation between knots that are as dense as each layer's functions ask for: these change the more
slowly the greater the distance, where most neighbours are, so that what is read often stays in a near cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nequip_fast.engine.program import Envelope, Program, RadialNetwork, RadialTable
from nequip_fast.engine.radial import TOO_CLOSE, hermite_table, radial_function, table_errors

_LOOKED_AT = 256  # intervals between kinks from whose errors the density of knots follows
_SPARSEST = 1 / 16  # knots for one of these
_MOST = 8192
_ERROR = {torch.float32: 7e-8, torch.float64: 5e-10}  # as error_weights counts it


def tabulate(program: Program, dtype: torch.dtype, intervals: int | None = None) -> tuple[Program, list[float]]:
    """The program with tables for its radial networks, and the error of each layer's.

    Args:
        dtype: of the network; the error is made small beside its rounding.
        intervals: of the tables; None: as few as do.
    """
    close, kinks = TOO_CLOSE / float(program.cutoff.max()), _kinks(program.basis.envelope)
    layers, errors = [], []
    for layer in program.layers:
        assert isinstance(layer.radial, RadialNetwork)
        function = radial_function(program.basis, layer.radial)
        knots, error = _knots(function, kinks, close, _ERROR[dtype], intervals)
        table = RadialTable(knots, hermite_table(function, knots), layer.radial)
        layers.append(replace(layer, radial=table))
        errors.append(error)
    return replace(program, layers=layers), errors


def _kinks(envelope: Envelope) -> list[float]:
    """Where it is not smooth: there has to be a knot."""
    return [envelope.parameter] if envelope.kind == "xplor" else []


def _knots(
    function: Callable[[Tensor], Tensor],
    kinks: Sequence[float],
    close: float,
    tolerance: float,
    intervals: int | None,
) -> tuple[Tensor, float]:
    """The knots, ``intervals`` of them or as many as keep the errors below the tolerance, and the largest error."""
    pieces = [torch.linspace(*ends, _LOOKED_AT + 1, dtype=torch.float64) for ends in pairwise((0.0, *kinks, 1.0))]
    found = table_errors(function, torch.cat([pieces[0][:1], *[piece[1:] for piece in pieces]]), close)
    needed = (found / tolerance) ** (1 / 3)  # slopes, whose error is of third order, decide as a rule
    needed = torch.nn.functional.max_pool1d(needed.view(1, 1, -1), 3, 1, 1).view(len(pieces), -1).clamp(min=_SPARSEST)
    factor = 1.0 if intervals is None else intervals / float(needed.sum())
    knots = pieces[0][:1]
    for piece, density in zip(pieces, needed, strict=True):
        total = torch.cat([density.new_zeros(1), density.cumsum(0)])
        count = max(1, math.ceil(factor * float(total[-1]) - 1e-9))
        placed = np.interp(np.linspace(0, float(total[-1]), count + 1)[1:], total.numpy(), piece.numpy())
        placed[-1] = piece[-1]
        knots = torch.cat([knots, torch.from_numpy(placed)])
    while True:
        errors = table_errors(function, knots, close)
        large = errors > tolerance
        if intervals is not None or not large.any() or len(knots) > _MOST:
            return knots, float(errors.max())
        middles = (knots[:-1] + 0.5 * knots.diff())[large]
        knots = torch.cat([knots, middles]).sort().values
