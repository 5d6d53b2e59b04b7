"""The last matrices of the radial networks, factorised.

A last matrix [H, W] mixes H smooth functions of one variable, which to rounding span few dimensions: with 8 functions
in the basis about 32 in float32, 60 in float64. In coordinates of these the product costs a fraction.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

import torch

from nequip_fast.engine.program import Program, RadialBasis, RadialNetwork
from nequip_fast.engine.radial import TOO_CLOSE, error_weights, hidden_function, value_and_slope

_POINTS = 1024  # where the functions are looked at; the error is taken between them
_ERROR = {torch.float32: 1.5e-7, torch.float64: 5e-14}  # as error_weights counts it


def reduce_rank(program: Program, dtype: torch.dtype) -> tuple[Program, list[float]]:
    """The program with radial networks of the least rank that does, and the error of each layer's.

    Args:
        dtype: of the network; the error is that of its rounding.
    """
    close = TOO_CLOSE / float(program.cutoff.max())
    layers, errors = [], []
    for layer in program.layers:
        assert isinstance(layer.radial, RadialNetwork)
        network, error = _reduced(program.basis, layer.radial, close, _ERROR[dtype])
        layers.append(replace(layer, radial=network))
        errors.append(error)
    return replace(program, layers=layers), errors


def _reduced(basis: RadialBasis, network: RadialNetwork, close: float, tolerance: float) -> tuple[RadialNetwork, float]:
    """The network itself, and no error, where nothing is gained."""
    last = network.matrices[-1]
    looked_at, between = (_samples(basis, network, close, offset) for offset in (0.5, 1.0))
    span, triangle = torch.linalg.qr(last.T)
    directions = span @ torch.linalg.svd(looked_at @ triangle.T, full_matrices=False).Vh.T  # the most important first
    combined = last @ directions
    coordinates = between @ combined

    def error(rank: int) -> float:
        return float((coordinates[:, rank:] @ directions[:, rank:].T).abs().max())

    most = directions.shape[1]
    rank = bisect_left(range(most), -tolerance, lo=1, key=lambda rank: -error(rank))
    inputs, width = last.shape
    if rank * (inputs + width) >= inputs * width:
        return network, 0.0
    matrices = [*network.matrices[:-1], directions[:, :rank].T.contiguous()]
    return replace(network, matrices=matrices, combinations=combined[:, :rank].contiguous()), error(rank)


def _samples(basis: RadialBasis, network: RadialNetwork, close: float, offset: float) -> torch.Tensor:
    """[2K, H]: what the last matrix acts on at K distances, and its slopes, weighted as errors of the weights count."""
    x = ((torch.arange(_POINTS, dtype=torch.float64) + offset) / _POINTS).unsqueeze(1)
    values, slopes = value_and_slope(hidden_function(basis, network), x)
    last = network.matrices[-1]
    return error_weights(values @ last, slopes @ last, x, close) * torch.cat([values, slopes])
