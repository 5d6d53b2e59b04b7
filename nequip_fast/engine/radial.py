"""The radial weights of a layer: the perceptron on the Bessel basis, and tables: quintic Hermite interpolation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nequip_fast.engine.program import Envelope, RadialBasis, RadialNetwork
from nequip_fast.ops.gate import ACTIVATIONS
from nequip_fast.ops.radial import polynomial_cutoff

TOO_CLOSE = 0.5  # Å, less than any bond: what the radial networks do there was never trained, and may vary quickly
_NEAREST = 1e-4  # of the first interval: where the first knot is evaluated, the basis being 0/0 at 0
_ACTIVATIONS = ACTIVATIONS | {  # torch's own have no second derivative in forward mode
    "silu": lambda x: x * torch.sigmoid(x),
    "mish": lambda x: x * torch.tanh(torch.nn.functional.softplus(x)),
}


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

    activation = _ACTIVATIONS[network.activation]
    return lambda x: hidden_layers(network, basis_functions(basis, x), activation)


def hidden_layers(network: RadialNetwork, basis: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """What the last matrix acts on, from the basis [K, functions]."""
    h = basis
    for matrix in network.matrices[:-1]:
        h = network.constant * activation(h @ matrix)
    return h if network.combinations is None else h @ network.combinations


def radial_function(basis: RadialBasis, network: RadialNetwork) -> Callable[[Tensor], Tensor]:
    """x [K, 1] in (0, 1] -> weights [K, W], row by row."""
    hidden = hidden_function(basis, network)
    return lambda x: hidden(x) @ network.matrices[-1]


def hermite_table(function: Callable[[Tensor], Tensor], knots: Tensor) -> Tensor:
    """Values, first and second derivatives at the knots.

    Args:
        function: x [K, 1] in (0, 1] -> [K, W], row by row; float64.
        knots: [intervals + 1], rising, between 0 and 1.

    Returns:
        [intervals + 1, 3, W].
    """
    x = knots.clamp(min=_NEAREST * float(knots[1])).unsqueeze(1)
    value, slope = value_and_slope(function, x)
    _, curvature = value_and_slope(lambda x: value_and_slope(function, x)[1], x)
    return torch.stack([value, slope, curvature], 1)


def hermite(knots: Tensor, table: Tensor, x: Tensor) -> Tensor:
    """The function [K, W] that the table stands for, at x [K] between 0 and 1."""
    below = (torch.searchsorted(knots, x.detach(), right=True) - 1).clamp(0, len(knots) - 2)
    width = (knots[below + 1] - knots[below]).unsqueeze(1)
    t = (x - knots[below]).unsqueeze(1) / width
    s = 1 - t
    (low, low_slope, low_curvature), (high, high_slope, high_curvature) = (
        table[below].unbind(1),
        table[below + 1].unbind(1),
    )
    slopes = t * s**3 * (1 + 3 * t) * low_slope - s * t**3 * (1 + 3 * s) * high_slope
    curvatures = t**2 * s**3 * low_curvature + s**2 * t**3 * high_curvature
    return low + t**3 * (10 - 15 * t + 6 * t**2) * (high - low) + width * slopes + width**2 / 2 * curvatures


def table_errors(function: Callable[[Tensor], Tensor], knots: Tensor, close: float) -> Tensor:
    """[intervals]: the table's largest error in each, values and slopes as :func:`error_weights` counts them.

    Nothing lies inside an interval as narrow as rounding, on either side of a kink.
    """
    table = hermite_table(function, knots)
    # the error of a value is largest in the middle of an interval, that of a slope where (t (1 − t))² (1 − 2t) is
    x = torch.cat([knots[:-1] + part * knots.diff() for part in (0.5, 0.2764, 0.7236)]).unsqueeze(1)
    exact = value_and_slope(function, x)
    found = value_and_slope(lambda x: hermite(knots, table, x.squeeze(1)), x)
    errors = error_weights(*exact, x, close) * (torch.cat(found) - torch.cat(exact)).abs()
    return errors.max(1).values.view(6, -1).max(0).values * (knots.diff() > 1e-12)


def error_weights(values: Tensor, slopes: Tensor, x: Tensor, close: float) -> Tensor:
    """[2K, 1]: how much errors of values [K, W] and slopes [K, W] at x [K, 1] count.

    Over the largest of each where nuclei come, x > ``close``; those of slopes a tenth. Those nearer a hundredth; from
    the shortest bonds on they grow with x², as the number of neighbours does.
    """
    seen = x > close
    weights = torch.where(seen, (x / (1.4 * close)).clamp(min=1.0) ** 2, 0.01)
    return torch.cat([weights / (seen * values).abs().max(), 0.1 * weights / (seen * slopes).abs().max()])


def value_and_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The function and its derivative, row by row."""
    with torch.no_grad():
        result = torch.func.jvp(function, (x,), (torch.ones_like(x),))
    return result[0], result[1]
