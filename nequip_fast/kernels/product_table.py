"""The paths of ``tensor_product`` as its kernels are given them: tables as in :mod:`nequip_fast.kernels.table`.

A kernel computes one of out, x, y and w, the target, from the others; a and b are the two of (x, y, out) that it sums
over. A group is one irrep of the target with all paths that reach it. The row of a path, whose x and y are the columns
of a and b in e3nn's ``mul_ir`` layout and whose ``w_stride`` is 1 or, without weights, 0, goes on with

    path  […, mode, mul1, mul2, mul3, out]

For the weights as target a path is a group of its own, of as many channels as it has weights; x is a, y is b, and out
the column of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
import triton
from e3nn import o3
from torch.utils._python_dispatch import _disable_current_modes

from nequip_fast.kernels.table import Part, coupled_components, decoded, together
from nequip_fast.ops.product_paths import ProductPath, ProductProblem

_ORDER = {"out": (0, 1, 2), "x": (2, 1, 0), "y": (2, 0, 1), "w": (0, 1, 2)}  # target: a, b and the third of x, y, out


class ProductTable:
    """What the kernels of one target need.

    The results of ``layers`` are to be added up. In a layer, blocks of columns are the same or apart, so that one
    program writes each; problems from irreps have one layer.
    """

    def __init__(self, problem: ProductProblem, target: str) -> None:
        self.width = {"out": problem.dim_out, "x": problem.dim_x, "y": problem.dim_y, "w": problem.dim_w}[target]
        paths = [path for path in problem.paths if target != "w" or (path.w >= 0 and _block(path, "w")[1])]
        layers = _layers(paths, target)
        self.layers = [[Part(groups) for groups in together(_groups(layer, target))] for layer in layers]
        self.covered = [sum(n * c for _, n, c in {_block(p, target) for p in layer}) == self.width for layer in layers]


@lru_cache(maxsize=256)
def product_table(text: str, target: str) -> ProductTable:
    """The table of the problem with this text."""
    with _disable_current_modes():  # torch may be tracing the operator that asks
        return ProductTable(ProductProblem.from_text(text), target)


@lru_cache(maxsize=256)
def weighted(text: str) -> str:
    """The text of the same problem without the paths that have no weights."""
    return ProductProblem.from_text(text).weighted().text


def _block(path: ProductPath, target: str) -> tuple[int, int, int]:
    """(first column, channels, components) of what a path adds to."""
    return {
        "out": (path.out, path.mul3, 2 * path.l3 + 1),
        "x": (path.x, path.mul1, 2 * path.l1 + 1),
        "y": (path.y, path.mul2, 2 * path.l2 + 1),
        "w": (path.w, prod(path.weight_shape), 1),
    }[target]


def _layers(paths: Sequence[ProductPath], target: str) -> list[list[ProductPath]]:
    layers: list[list[ProductPath]] = []
    for path in paths:
        fitting = (layer for layer in layers if all(_same_or_apart(path, other, target) for other in layer))
        layer = next(fitting, None)
        if layer is None:
            layers.append([path])
        else:
            layer.append(path)
    return layers


def _same_or_apart(one: ProductPath, other: ProductPath, target: str) -> bool:
    first, second = sorted((_block(one, target), _block(other, target)))
    return first == second or first[0] + first[1] * first[2] <= second[0]


def _groups(paths: Sequence[ProductPath], target: str) -> list[Any]:
    groups: dict[int, list[Any]] = {}
    for path in paths:
        start, channels, components = _block(path, target)
        columns, degrees = (path.x, path.y, path.out), (path.l1, path.l2, path.l3)
        order = _ORDER[target]
        coupling = (o3.wigner_3j(*degrees, dtype=torch.float64) * path.coefficient).permute(order)
        group = groups.setdefault(start, [channels, [[start, components]], []])
        group[2].append(
            [
                columns[order[0]], columns[order[1]], max(path.w, 0), int(path.w >= 0), 0, *coupling.shape,
                coupled_components(coupling), path.mode, path.mul1, path.mul2, path.mul3, path.out,
            ]
        )  # fmt: skip
    return list(groups.values())


# --- what kernels read ---


@triton.constexpr_function
def relation(mode):
    """Which pairs of a channel u of x and v of y a mode has: all, those with u = v (same), or with u < v (less)."""
    return {"uuw": "same", "uuu": "same", "uvu<v": "less", "u<vw": "less"}.get(mode, "all")


@triton.constexpr_function
def mixes(mode):
    """Whether a pair reaches all channels of the output, through a row of weights, or just one."""
    return mode in ("uvw", "uuw", "u<vw")


@triton.constexpr_function
def count_pairs(mode, mul1, mul2):
    """How many pairs there are."""
    return {"all": mul1 * mul2, "same": mul1, "less": mul1 * (mul1 - 1) // 2}[relation(mode)]


@triton.constexpr_function
def count_partners(target, mode, mul1, mul2):
    """How many pairs, at most, reach one channel of the target through one weight each."""
    if relation(mode) == "same" or (target == "out" and mode in ("uvuv", "uvu<v")):
        return 1
    return mul1 if target == "y" or (mode == "uvv" and target == "out") else mul2


@triton.constexpr_function
def weight_blocks_before(text, group, rows, columns):
    """Blocks of weights of the paths before this one: [rows, columns] of its matrix, or ``columns`` of its weights."""
    total = 0
    for _, _, [path] in decoded(text)[:group]:
        mode, mul1, mul2, mul3 = path[9:13]
        size = count_pairs(mode, mul1, mul2)
        total += -(-size // rows) * -(-mul3 // columns) if mixes(mode) else -(-size // columns)
    return total
