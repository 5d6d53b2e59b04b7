"""nequip_fast on its fastest backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import e3nn
import torch
from torch import Tensor

import nequip_fast.nn
import nequip_fast.o3
from bench.calls import NotOffered
from bench.problems import ConvCase, HarmonicsCase, ModelCase, ModuleCase
from bench.water import water_graph
from nequip_fast.dtypes import default_dtype
from nequip_fast.ops import Graph, spherical_harmonics
from nequip_fast.ops import conv as conv_operator

NAME = "nequip_fast"


def missing() -> str | None:
    """Never."""
    return None


def conv(case: ConvCase, dtype: torch.dtype, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """One fused operator."""
    problem, graph = case.problem(), Graph(*(t.to(device) for t in case.graph()))
    return lambda x, y, w: conv_operator(x, y, w, graph, problem)


def harmonics(case: HarmonicsCase, dtype: torch.dtype, device: str) -> Callable[[Tensor], Tensor]:
    """One operator after the normalisation."""
    return lambda vectors: spherical_harmonics(vectors, case.l_max)


def module(case: ModuleCase, dtype: torch.dtype, device: str) -> torch.nn.Module:
    """The module of the same name and arguments, with e3nn's weights."""
    namespace, name = case.module.split(".")
    if not hasattr(getattr(nequip_fast, namespace), name):
        raise NotOffered(f"nequip_fast has no {case.module}")
    with default_dtype(dtype):
        built = case.build(nequip_fast)
        weights = case.build(e3nn).state_dict()
    built.load_state_dict(weights)
    return built.to(device)


def model(case: ModelCase, dtype: torch.dtype, device: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Our NequIP, evaluation mode."""
    from nequip_fast.model import PresetNequIPGNNModel

    built = PresetNequIPGNNModel(**model_arguments(case, dtype))
    return built.eval().to(device), {k: v.to(device) for k, v in water_graph(case.molecules, case.r_max).items()}


def model_arguments(case: ModelCase, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of nequip's preset builder, common to all contenders."""
    return {
        "preset": case.preset, "seed": 0, "model_dtype": str(dtype).removeprefix("torch."), "r_max": case.r_max,
        "type_names": ["H", "O"], "avg_num_neighbors": 50.0, "per_type_energy_scales": 1.0,
        "per_type_energy_shifts": 0.0,
    }  # fmt: skip
