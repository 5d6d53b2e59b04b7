"""The radial networks as tables: the weights of a layer are functions of r/r_c alone, whatever the elements."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import torch

from nequip_fast.engine.program import Program, RadialNetwork, RadialTable
from nequip_fast.engine.radial import TOO_CLOSE, hermite_table, radial_function, table_error

_FEWEST, _MOST = 64, 8192
_ERROR = {torch.float32: 1e-6, torch.float64: 1e-8}  # of the largest value; a slope's error is ten times that


def tabulate(program: Program, dtype: torch.dtype, intervals: int | None = None) -> tuple[Program, list[float]]:
    """The program with tables for its radial networks, and the error of each layer's.

    Args:
        dtype: of the network; the error is made small beside its rounding.
        intervals: of the tables; None: about as few as do, 64 or more.
    """
    apart, close = _apart(program), TOO_CLOSE / float(program.cutoff.max())
    layers, errors = [], []
    for layer in program.layers:
        assert isinstance(layer.radial, RadialNetwork)
        function = radial_function(program.basis, layer.radial)
        count = intervals or _rounded_up(_FEWEST, apart)
        while True:
            table = hermite_table(function, count)
            error = table_error(table, function, close)
            if intervals is not None or error <= _ERROR[dtype] or count >= _MOST:
                break
            of_fourth_order = count * (error / _ERROR[dtype]) ** 0.25
            count = _rounded_up(max(1.05 * count, min(2 * count, of_fourth_order)), apart)
        layers.append(replace(layer, radial=RadialTable(table, layer.radial)))
        errors.append(error)
    return replace(program, layers=layers), errors


def _apart(program: Program) -> int:
    """Of what the intervals must be a multiple for a knot to lie where the envelope is not smooth."""
    envelope = program.basis.envelope
    return Fraction(envelope.parameter).limit_denominator(_FEWEST).denominator if envelope.kind == "xplor" else 1


def _rounded_up(count: float, apart: int) -> int:
    return math.ceil(count / apart) * apart
