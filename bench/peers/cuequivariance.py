"""cuEquivariance: gather, product and scatter in one kernel ("uniform_1d"), which wants segments of equal size.

Channels are split into segments of the greatest size that divides all multiplicities. Its layout is channel-last: the
columns of inputs are permuted before and those of results after the timing, so that it pays for neither.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from math import gcd
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from bench.calls import FORWARD, Call, derivatives
from bench.problems import ConvCase

NAME = "cuEquivariance"
DEVICES = ("cuda",)
FAMILY = "cuEquivariance"


def missing() -> str | None:
    """Needs three packages and a GPU."""
    for package in ("cuequivariance", "cuequivariance_torch", "cuequivariance_ops_torch"):
        if find_spec(package) is None:
            return f"{package} is not installed; run: pip install cuequivariance-torch cuequivariance-ops-torch-cu13"
    return None if torch.cuda.is_available() else "cuEquivariance has only GPU kernels"


def conv_calls(case: ConvCase, dtype: torch.dtype, device: str, method: str = "uniform_1d") -> dict[str, Call]:
    """The three modes in its own layout."""
    irreps_in, _, irreps_out, _ = case.irreps()
    x, y, w, cotangent = (t.detach().to(device) for t in case.tensors(dtype))
    theirs_in, theirs_out = channel_last(irreps_in, device), channel_last(irreps_out, device)
    leaves = [t.contiguous().requires_grad_() for t in (x[:, theirs_in], y, w)]
    calls = derivatives(function(case, dtype, device, method), leaves, cotangent[:, theirs_out].contiguous())
    return {
        mode: Call(call.run, partial(_as_ours, (theirs_out if mode == FORWARD else theirs_in).argsort()))
        for mode, call in calls.items()
    }


def _as_ours(columns: Tensor, results: list[Tensor]) -> list[Tensor]:
    """The output, or the gradient of x, in e3nn's layout."""
    return [results[0][:, columns], *results[1:]]


def channel_last(irreps: o3.Irreps, device: str) -> Tensor:
    """Which column of e3nn's layout each of theirs is."""
    blocks = [
        s.start + torch.arange(mul * ir.dim).view(mul, ir.dim).T.flatten()
        for s, (mul, ir) in zip(irreps.slices(), irreps, strict=True)
    ]
    return torch.cat(blocks).to(device)


def function(
    case: ConvCase, dtype: torch.dtype, device: str, method: str
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The convolution, x and the result channel-last."""
    from cuequivariance_torch import SegmentedPolynomial

    polynomial = SegmentedPolynomial(_polynomial(case, method), method=method, math_dtype=dtype).to(device)
    graph = case.graph()
    sender, receiver = {1: graph.sender.to(device)}, {0: graph.receiver.to(device)}

    def convolve(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return polynomial([w, x, y], sender, {0: x[:, :1]}, receiver)[0]

    return convolve


def _polynomial(case: ConvCase, method: str) -> Any:
    """Our paths with e3nn's coefficients, as theirs: w, x, y -> out."""
    import cuequivariance as cue

    irreps_in, irreps_sh, irreps_out, instructions = case.irreps()
    product = cue.SegmentedTensorProduct.from_subscripts("u,iu,j,ku+ijk")
    for operand, irreps in ((1, irreps_in), (3, irreps_out)):
        for mul, ir in irreps:
            product.add_segment(operand, (ir.dim, mul))
    for _, ir in irreps_sh:
        product.add_segment(2, (ir.dim,))
    for (i, j, k), path in zip(instructions, case.problem().paths, strict=True):
        weights = product.add_segment(0, (path.mul,))
        coupling = o3.wigner_3j(path.l1, path.l2, path.l3, dtype=torch.float64) * path.coefficient
        product.add_path(weights, i, j, k, c=coupling.numpy())
    polynomial = cue.SegmentedPolynomial.eval_last_operand(product)
    if method == "uniform_1d":
        polynomial = polynomial.flatten_coefficient_modes().squeeze_modes()
        polynomial = polynomial.split_mode("u", gcd(*(mul for mul, _ in irreps_in)))
    return polynomial
