"""Instructions of e3nn's ``TensorProduct``: what is allowed, and the same as paths of an operator."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from e3nn import o3

from nequip_fast.errors import InputError, nearest
from nequip_fast.o3.errors import InstructionError, require
from nequip_fast.ops import ProductPath, ProductProblem
from nequip_fast.ops.product_paths import MODES


def check_instruction(instruction: tuple, in1: o3.Irreps, in2: o3.Irreps, out: o3.Irreps) -> None:
    """Refuse an instruction ``(i_in1, i_in2, i_out, mode, has_weight[, path_weight])`` that joins what does not couple.

    Raises:
        InstructionError: not such a tuple, an unknown mode, an index beyond the irreps, or irreps that do not
            multiply to the output.
    """
    require(
        len(instruction) in (5, 6),
        f"an instruction is (i_in1, i_in2, i_out, mode, has_weight[, path_weight]), got {instruction}",
    )
    *indices, mode = instruction[:4]
    for name, index, irreps in zip(("irreps_in1", "irreps_in2", "irreps_out"), indices, (in1, in2, out), strict=True):
        require(0 <= index < len(irreps), f"instruction {instruction}: {index} is no index into {name} = {irreps}")
    require(
        mode in MODES,
        f"instruction {instruction}: the mode must be one of {', '.join(MODES)}{nearest(str(mode), MODES)}",
    )
    ir1, ir2, ir_out = in1[indices[0]].ir, in2[indices[1]].ir, out[indices[2]].ir
    require(ir_out in ir1 * ir2, f"instruction {instruction}: {ir1} x {ir2} does not contain {ir_out}")


def product_problem(
    in1: o3.Irreps, in2: o3.Irreps, out: o3.Irreps, instructions: Sequence[o3.Instruction]
) -> ProductProblem:
    """The paths of ``instructions``, whose ``path_weight`` already holds e3nn's normalisation.

    Weights are laid out one block after the other in the order of the instructions that have some.

    Raises:
        InstructionError: multiplicities that the mode does not join, or a mode that needs weights without.
    """
    starts = [[s.start for s in irreps.slices()] for irreps in (in1, in2, out)]
    paths, dim_w = [], 0
    for instruction in instructions:
        i1, i2, i3, mode, has_weight, coefficient, shape = instruction
        (mul1, ir1), (mul2, ir2), (mul3, ir3) = in1[i1], in2[i2], out[i3]
        if 0 not in shape:  # e3nn ignores instructions without channels, whatever else they say
            offsets = starts[0][i1], starts[1][i2], dim_w if has_weight else -1, starts[2][i3]
            paths.append(ProductPath(mode, ir1.l, ir2.l, ir3.l, mul1, mul2, mul3, *offsets, coefficient))
        dim_w += prod(shape) if has_weight else 0
    try:
        return ProductProblem(paths, in1.dim, in2.dim, dim_w, out.dim)
    except InputError as error:
        raise InstructionError(str(error)) from None


def check_choice(argument: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse a ``value`` that is neither None nor one of ``choices``."""
    require(
        value is None or value in choices,
        f"{argument} must be one of {', '.join(choices)}, got {value!r}{nearest(str(value), choices)}",
    )
