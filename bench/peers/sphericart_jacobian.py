"""sphericart at its best: values and all derivatives [E, 3, (L + 1)²] in one call, not contracted with a cotangent."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.calls import BACKWARD, Call
from bench.peers import sphericart as autograd
from bench.problems import HarmonicsCase

NAME = "sphericart-jacobian"
FAMILY = autograd.FAMILY
missing = autograd.missing


def harmonics_calls(case: HarmonicsCase, dtype: torch.dtype, device: str) -> dict[str, Call]:
    """``compute_with_gradients`` stands for forward+backward; the contraction is left to the comparison."""
    import sphericart.torch

    vectors, cotangent = case.tensors(dtype)
    own, g = autograd.own_axes(vectors, device).detach(), cotangent.to(device)
    function = sphericart.torch.SphericalHarmonics(case.l_max).to(device)

    def contracted(results: list[Tensor]) -> list[Tensor]:
        return [autograd.COMPONENT * autograd.our_axes(torch.einsum("eak,ek->ea", results[1], g))]

    return {BACKWARD: Call(lambda: list(function.compute_with_gradients(own)), contracted)}
