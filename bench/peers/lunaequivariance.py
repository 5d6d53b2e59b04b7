"""LunaEquivariance: gather, product and sum over sorted receivers in generated CUDA kernels, deterministic."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from bench.problems import ConvCase, HarmonicsCase

NAME = "LunaEquivariance"
DEVICES = ("cuda",)


def missing() -> str | None:
    """Needs the package, a GPU, and nvcc to build its kernels when they are first called."""
    if find_spec("LunaEquivariance") is None:
        return "LunaEquivariance is not installed; run: pip install LunaEquivariance"
    return None if torch.cuda.is_available() else "LunaEquivariance has only GPU kernels"


def conv(case: ConvCase, dtype: torch.dtype, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Its convolution; the graph is prepared once, as ours is."""
    from LunaEquivariance.modules.tensorproduct import TensorProductConv

    irreps_in, irreps_sh, irreps_out, instructions = case.irreps()
    product = TensorProductConv(
        irreps_in, irreps_sh, irreps_out, [(*path, "uvu", True) for path in instructions],
        internal_weights=False, shared_weights=False, dtype=dtype,
    ).to(device)  # fmt: skip
    graph = case.graph()
    prepared = product.create_graph(graph.sender.to(device), graph.receiver.to(device), graph.num_nodes)
    return lambda x, y, w: product(x, y, w, graph=prepared)


def harmonics(case: HarmonicsCase, dtype: torch.dtype, device: str) -> Callable[[Tensor], Tensor]:
    """Its module, built once."""
    from LunaEquivariance.modules.spherical_harmonics import LunaEqSphericalHarmonics

    degrees = list(range(case.l_max + 1))
    return LunaEqSphericalHarmonics(degrees, normalize=True, normalization="component", dtype=dtype).to(device)
