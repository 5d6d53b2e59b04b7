"""The radial networks as tables: the weights of a layer are functions of r/r_c alone, whatever the elements."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import torch

from nequip_fast.engine.program import Program, RadialNetwork, RadialTable
from nequip_fast.engine.radial import hermite_table, radial_function, table_error

_FEWEST, _MOST = 64, 8192
_CLOSE = 0.5  # Å, less than any bond: what the radial networks do there was never trained, and may vary quickly
_ERROR = {torch.float32: 1e-6, torch.float64: 1e-8}  # of the largest value; a slope's error is ten times that


def tabulate(program: Program, dtype: torch.dtype, intervals: int | None = None) -> tuple[Program, list[float]]:
    """The program with tables for its radial networks, and the error of each layer's.

    Args:
        dtype: of the network; the error is made small beside its rounding.
        intervals: of the tables; None: as few of about 64, 128, 256 … as do.
    """
    networks = [layer.radial for layer in program.layers if isinstance(layer.radial, RadialNetwork)]
    functions = [radial_function(program.basis, network) for network in networks]
    count, close = intervals or _fewest(program), _CLOSE / float(program.cutoff.max())
    while True:
        tables = [hermite_table(function, count) for function in functions]
        errors = [table_error(table, function, close) for table, function in zip(tables, functions, strict=True)]
        if intervals is not None or max(errors) <= _ERROR[dtype] or count >= _MOST:
            break
        count *= 2
    layers = [
        replace(layer, radial=RadialTable(table, network))
        for layer, table, network in zip(program.layers, tables, networks, strict=True)
    ]
    return replace(program, layers=layers), errors


def _fewest(program: Program) -> int:
    """About ``_FEWEST`` intervals, with a knot where the envelope is not smooth."""
    envelope = program.basis.envelope
    apart = Fraction(envelope.parameter).limit_denominator(_FEWEST).denominator if envelope.kind == "xplor" else 1
    return math.ceil(_FEWEST / apart) * apart
