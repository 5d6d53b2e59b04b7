"""State dicts with the constants of e3nn's generated code.

e3nn's tensor products keep the Clebsch-Gordan tensors and index lists of their generated code as buffers, so they
are part of a state dict although they are no state. To exchange state dicts strictly in both directions, ours write
the same keys, and take no notice of them when they read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

GENERATED = _LEFT_RIGHT, _RIGHT = "_compiled_main_left_right.", "_compiled_main_right."


def generated_constants(product: Any) -> Iterator[tuple[str, Tensor]]:
    """(key, value) of the constants in e3nn's code for our ``TensorProduct``."""
    for prefix, made, needs_coupling in (
        (_LEFT_RIGHT, product._did_compile_left_right, _left_right_needs_coupling),
        (_RIGHT, product._did_compile_right, _right_needs_coupling),
    ):
        for instruction in product.instructions if made else ():
            if 0 in instruction.path_shape:
                continue
            mul, ir1 = product.irreps_in1[instruction.i_in1]
            degrees = ir1.l, product.irreps_in2[instruction.i_in2].ir.l, product.irreps_out[instruction.i_out].ir.l
            if not product._specialized_code or needs_coupling(instruction, degrees):
                like = product.output_mask
                coupling = o3.wigner_3j(*degrees, dtype=torch.float64).to(like)
                yield f"{prefix}_w3j_{'_'.join(map(str, degrees))}", coupling
            if "<" in instruction.connection_mode:
                yield f"{prefix}_triu_indices_{mul}", torch.triu_indices(mul, mul, 1)


def _left_right_needs_coupling(instruction: o3.Instruction, degrees: tuple[int, int, int]) -> bool:
    """Whether e3nn's specialised code for ``forward`` contracts with the tensor: it has shortcuts for scalars."""
    mode = instruction.connection_mode
    if mode in ("uvuv", "uvu<v", "u<vw") or (mode in ("uvu", "uuw") and not instruction.has_weight):
        return True
    return 0 not in degrees and not (mode == "uuu" and degrees == (1, 1, 1))


def _right_needs_coupling(instruction: o3.Instruction, degrees: tuple[int, int, int]) -> bool:
    """The same for ``right``, which has fewer shortcuts."""
    mode = instruction.connection_mode
    if mode in ("uuw", "uvuv") or (mode in ("uvu", "uvv") and not instruction.has_weight):
        return True
    return 0 not in degrees
