"""The radial weights of a layer: the perceptron on the Bessel basis, and tables of it: cubic Hermite interpolation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nequip_fast.engine.program import Envelope, RadialBasis, RadialNetwork
from nequip_fast.nn.radial import polynomial_cutoff
from nequip_fast.ops.gate import ACTIVATIONS

TOO_CLOSE = 0.5  # Å, less than any bond: what the radial networks do there was never trained, and may vary quickly
_NEAREST = 1e-4  # of the first interval: where the first knot is evaluated, the basis being 0/0 at 0


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


def hermite_table(function: Callable[[Tensor], Tensor], knots: Tensor) -> Tensor:
    """Values and slopes at the knots.

    Args:
        function: x [K, 1] in (0, 1] -> [K, W], row by row; float64.
        knots: [intervals + 1], rising from 0 to 1.

    Returns:
        [intervals + 1, 2, W].
    """
    x = knots.unsqueeze(1).clone()
    x[0] = _NEAREST * knots[1]
    return torch.stack(value_and_slope(function, x), 1)


def hermite(knots: Tensor, table: Tensor, x: Tensor) -> Tensor:
    """The function [K, W] that the table stands for, at x [K] between 0 and 1."""
    below = (torch.searchsorted(knots, x.detach(), right=True) - 1).clamp(0, len(knots) - 2)
    width = (knots[below + 1] - knots[below]).unsqueeze(1)
    t = (x - knots[below]).unsqueeze(1) / width
    s = 1 - t
    (low, low_slope), (high, high_slope) = table[below].unbind(1), table[below + 1].unbind(1)
    slopes = t * s**2 * low_slope - t**2 * s * high_slope
    return (1 + 2 * t) * s**2 * low + t**2 * (1 + 2 * s) * high + width * slopes


def table_errors(function: Callable[[Tensor], Tensor], knots: Tensor, close: float) -> Tensor:
    """[intervals]: the table's largest error in each, values and slopes as :func:`error_weights` counts them."""
    table = hermite_table(function, knots)
    # the error of a value is largest in the middle of an interval, that of a slope a fifth from its ends
    x = torch.cat([knots[:-1] + part * knots.diff() for part in (0.5, 0.2113, 0.7887)]).unsqueeze(1)
    exact = value_and_slope(function, x)
    found = value_and_slope(lambda x: hermite(knots, table, x.squeeze(1)), x)
    errors = error_weights(*exact, x, close) * (torch.cat(found) - torch.cat(exact)).abs()
    return errors.max(1).values.view(6, -1).max(0).values


def error_weights(values: Tensor, slopes: Tensor, x: Tensor, close: float) -> Tensor:
    """[2K, 1]: how much errors of values [K, W] and slopes [K, W] at x [K, 1] count.

    Over the largest of each; those of slopes a tenth. Those at x < ``close``, nearer than nuclei come, a hundredth;
    from the shortest bonds on they grow with x², as the number of neighbours does.
    """
    weights = torch.where(x < close, 0.01, (x / (1.4 * close)).clamp(min=1.0) ** 2)
    return torch.cat([weights / values.abs().max(), 0.1 * weights / slopes.abs().max()])


def value_and_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The function and its derivative, row by row."""
    with torch.no_grad():
        result = torch.func.jvp(function, (x,), (torch.ones_like(x),))
    return result[0], result[1]
