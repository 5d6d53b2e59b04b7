"""cuEquivariance with the product in one kernel ("fused_tp"), which takes segments of any size; scatter apart."""

from __future__ import annotations

import torch

from bench.calls import Call
from bench.peers import cuequivariance
from bench.problems import ConvCase

NAME = "cuEquivariance fused_tp"
FAMILY, DEVICES = cuequivariance.FAMILY, cuequivariance.DEVICES
missing = cuequivariance.missing


def conv_calls(case: ConvCase, dtype: torch.dtype, device: str) -> dict[str, Call]:
    """The three modes in its own layout."""
    return cuequivariance.conv_calls(case, dtype, device, "fused_tp")
