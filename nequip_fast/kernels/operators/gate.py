"""``gate``."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import triton
from torch import Tensor

from nequip_fast.kernels import gate
from nequip_fast.kernels.operators.launch import contiguous, launch, operator

KERNELS = [gate.gate, gate.gate_vjp, gate.gate_vjp_grad]


@operator("nequip_fast::triton_gate", mutates_args={})
def triton_gate(x: Tensor, text: str) -> Tensor:
    """``gate``."""
    segments, width, _ = _gate_table(text)
    out = x.new_empty(*x.shape[:-1], width)
    _launch_gate(gate.gate, (out, x.contiguous()), x, segments, width)
    return out


@operator("nequip_fast::triton_gate_vjp", mutates_args={})
def triton_gate_vjp(x: Tensor, g: Tensor, text: str) -> Tensor:
    """The derivative of g · gate by x."""
    segments, width, reads_all = _gate_table(text)
    to_x = x.new_empty(x.shape) if reads_all else x.new_zeros(x.shape)
    _launch_gate(gate.gate_vjp, (to_x, *contiguous(x, g)), x, segments, width)
    return to_x


@operator("nequip_fast::triton_gate_vjp_grad", mutates_args={})
def triton_gate_vjp_grad(x: Tensor, g: Tensor, c: Tensor, text: str) -> tuple[Tensor, Tensor]:
    """The derivatives of c · gate_vjp by x and g."""
    segments, width, reads_all = _gate_table(text)
    to_x = x.new_empty(x.shape) if reads_all else x.new_zeros(x.shape)
    to_g = g.new_empty(g.shape)
    _launch_gate(gate.gate_vjp_grad, (to_x, to_g, *contiguous(x, g, c)), x, segments, width)
    return to_x, to_g


@lru_cache(maxsize=256)
def _gate_table(text: str) -> tuple[str, int, bool]:
    """(the segments, the width of the result, whether all of the input is read)."""
    from nequip_fast.ops.gate import GateProblem  # not above: that module registers these operators' derivatives

    problem = GateProblem.from_text(text)
    read = sum(s.mul * (s.dim + (s.gate >= 0)) for s in problem.segments)
    return json.dumps(problem.segments, separators=(",", ":")), problem.dim_out, read == problem.dim_in


_TILES = [{"ROWS": rows, "CHANNELS": 32, "num_warps": warps} for rows, warps in ((4, 1), (1, 1), (2, 1), (8, 2))]


def _launch_gate(kernel: Any, tensors: tuple[Tensor, ...], x: Tensor, segments: str, width: int) -> None:
    rows = x.numel() // max(x.shape[-1], 1)
    launch(
        kernel, lambda tile: triton.cdiv(rows, tile["ROWS"]), *tensors, rows, tiles=_TILES,
        SEGMENTS=segments, WIDTH_IN=x.shape[-1], WIDTH_OUT=width,
    )  # fmt: skip
