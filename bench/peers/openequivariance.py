"""OpenEquivariance: gather, product and atomic scatter in one CUDA kernel, as nequip runs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from bench.problems import ConvCase

NAME = "OpenEquivariance"
DEVICES = ("cuda",)


def missing() -> str | None:
    """Needs the package and an NVIDIA or AMD GPU."""
    if find_spec("openequivariance") is None:
        return "OpenEquivariance is not installed; run: pip install openequivariance"
    return None if torch.cuda.is_available() else "OpenEquivariance has only GPU kernels"


def conv(case: ConvCase, dtype: torch.dtype, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Its defaults; the deterministic variant would be slower."""
    from openequivariance import TensorProductConv, TPProblem

    irreps_in, irreps_sh, irreps_out, instructions = case.irreps()
    precision = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    problem = TPProblem(
        str(irreps_in), str(irreps_sh), str(irreps_out), [(*path, "uvu", True) for path in instructions],
        irrep_dtype=precision, weight_dtype=precision, shared_weights=False, internal_weights=False,
    )  # fmt: skip
    product, graph = TensorProductConv(problem, deterministic=False), case.graph()
    receiver, sender = graph.receiver.to(device), graph.sender.to(device)
    return lambda x, y, w: product(x, y, w, receiver, sender)
