"""The radial weights of a layer: the perceptron on the Bessel basis, and cubic Hermite tables of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nequip_fast.engine.program import Envelope, RadialBasis, RadialNetwork
from nequip_fast.nn.radial import polynomial_cutoff
from nequip_fast.ops.gate import ACTIVATIONS

TOO_CLOSE = 0.5  # Å, less than any bond: what the radial networks do there was never trained, and may vary quickly
_NEAREST = 1e-4  # of an interval: where the first knot is evaluated, the basis being 0/0 at 0


def envelope(kind: Envelope, x: Tensor) -> Tensor:
    """What the basis is multiplied with, at x = r/r_c."""
    if kind.kind == "polynomial":
        return polynomial_cutoff(x, kind.parameter)
    on = kind.parameter**2
    falling = (1 - x**2) ** 2 * (1 + 2 * x**2 - 3 * on) / (1 - on) ** 3
    return torch.where(x < kind.parameter, 1.0, falling) * (x < 1)


def basis_functions(basis: RadialBasis, x: Tensor) -> Tensor:
    """x [K, 1] in (0, 1] -> [K, functions]."""
    return basis.scale * torch.sin(x * basis.frequencies) / x * envelope(basis.envelope, x)


def hidden_function(basis: RadialBasis, network: RadialNetwork) -> Callable[[Tensor], Tensor]:
    """x [K, 1] in (0, 1] -> what the last matrix acts on, row by row."""

    def hidden(x: Tensor) -> Tensor:
        h = basis_functions(basis, x)
        for matrix in network.matrices[:-1]:
            h = network.constant * ACTIVATIONS[network.activation](h @ matrix)
        return h if network.combinations is None else h @ network.combinations

    return hidden


def radial_function(basis: RadialBasis, network: RadialNetwork) -> Callable[[Tensor], Tensor]:
    """x [K, 1] in (0, 1] -> weights [K, W], row by row."""
    hidden = hidden_function(basis, network)
    return lambda x: hidden(x) @ network.matrices[-1]


def hermite_table(function: Callable[[Tensor], Tensor], intervals: int) -> Tensor:
    """Values and slopes at equidistant knots.

    Args:
        function: x [K, 1] in (0, 1] -> [K, W], row by row; float64.
        intervals: between 0 and 1.

    Returns:
        [intervals + 1, 2, W]: the values, and the slopes times the interval.
    """
    knots = torch.linspace(0, 1, intervals + 1, dtype=torch.float64).unsqueeze(1)
    knots[0] = _NEAREST / intervals
    values, slopes = value_and_slope(function, knots)
    return torch.stack([values, slopes / intervals], 1)


def hermite(table: Tensor, x: Tensor) -> Tensor:
    """The function [K, W] that the table stands for, at x [K] between 0 and 1."""
    intervals = table.shape[0] - 1
    knot = (x * intervals).long().clamp(max=intervals - 1)
    t = (x * intervals - knot).unsqueeze(1)
    s = 1 - t
    (low, low_slope), (high, high_slope) = table[knot].unbind(1), table[knot + 1].unbind(1)
    return (1 + 2 * t) * s**2 * low + t * s**2 * low_slope + t**2 * (1 + 2 * s) * high - t**2 * s * high_slope


def table_error(table: Tensor, function: Callable[[Tensor], Tensor], close: float = 0.0) -> float:
    """Largest error of the table's values and slopes, as :func:`error_weights` counts them."""
    intervals = table.shape[0] - 1
    knots = torch.arange(intervals, dtype=torch.float64)
    # the error of a value is largest in the middle of an interval, that of a slope a fifth from its ends
    x = torch.cat([(knots + part) / intervals for part in (0.5, 0.2113, 0.7887)]).unsqueeze(1)
    exact = value_and_slope(function, x)
    found = value_and_slope(lambda x: hermite(table, x.squeeze(1)), x)
    return float((error_weights(*exact, x, close) * (torch.cat(found) - torch.cat(exact))).abs().max())


def error_weights(values: Tensor, slopes: Tensor, x: Tensor, close: float) -> Tensor:
    """[2K, 1]: how much errors of values [K, W] and slopes [K, W] at x [K, 1] count.

    Over the largest of each; those of slopes a tenth, and those at x < ``close``, nearer than nuclei come, a hundredth.
    """
    weights = torch.where(x < close, 0.01, 1.0)
    return torch.cat([weights / values.abs().max(), 0.1 * weights / slopes.abs().max()])


def value_and_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The function and its derivative, row by row."""
    with torch.no_grad():
        result = torch.func.jvp(function, (x,), (torch.ones_like(x),))
    return result[0], result[1]
