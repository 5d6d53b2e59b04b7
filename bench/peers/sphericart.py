"""sphericart: the fastest published spherical harmonics on CPUs, by autograd.

Its axes are e3nn's in another order (x, y, z for e3nn's z, x, y) and its harmonics have unit norm on the sphere; inputs
are turned before and results after the timing, so that it pays for neither.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from math import pi, sqrt

import torch
from torch import Tensor

from bench.calls import BACKWARD, DOUBLE_BACKWARD, FORWARD, Call, derivatives
from bench.problems import HarmonicsCase

NAME = "sphericart"
FAMILY = "sphericart"

_OUR_AXES_THERE, _ITS_AXES_HERE = [2, 0, 1], [1, 2, 0]
COMPONENT = sqrt(4 * pi)  # what e3nn calls component normalisation, relative to the unit norm


def missing() -> str | None:
    """Needs the package."""
    if find_spec("sphericart") is None:
        return "sphericart is not installed; run: pip install 'nequip_fast[bench]'"
    return None


def harmonics_calls(case: HarmonicsCase, dtype: torch.dtype, device: str) -> dict[str, Call]:
    """Values, first and second derivatives through torch's autograd."""
    import sphericart.torch

    vectors, cotangent = case.tensors(dtype)
    calls = derivatives(
        sphericart.torch.SphericalHarmonics(case.l_max).to(device), [own_axes(vectors, device)], cotangent.to(device)
    )
    # n derivatives that enter the result linearly bring n factors of the normalisation
    factors = {FORWARD: COMPONENT, BACKWARD: COMPONENT, DOUBLE_BACKWARD: COMPONENT**2}
    return {mode: Call(call.run, partial(_as_ours, mode, factors[mode])) for mode, call in calls.items()}


def own_axes(vectors: Tensor, device: str) -> Tensor:
    """A leaf with the same vectors in sphericart's axes."""
    return vectors.detach()[:, _OUR_AXES_THERE].to(device).requires_grad_()


def our_axes(gradient: Tensor) -> Tensor:
    """Back again, the last dimension."""
    return gradient[..., _ITS_AXES_HERE]


def _as_ours(mode: str, factor: float, results: list[Tensor]) -> list[Tensor]:
    return [factor * (result if mode == FORWARD else our_axes(result)) for result in results]
