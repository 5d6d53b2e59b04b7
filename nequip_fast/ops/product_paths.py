"""Paths of a general tensor product as numbers: what every backend of ``tensor_product`` is given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

from torch import Tensor

from nequip_fast.errors import InputError, nearest
from nequip_fast.ops.description import describe, read


class Mode(NamedTuple):
    """How the channels of a path hang together, as subscripts: u of x, v of y, w of the output.

    In the modes ``over_pairs`` both inputs have n channels, u and v stand for one pair of them (the pairs u < v in
    the order (0, 1), (0, 2), …, (1, 2), …), and p counts the pairs.
    """

    weight: str
    x: str
    y: str
    out: str
    over_pairs: bool = False


MODES = {  # the order is known to csrc/cpu/tensor_product/paths.h
    "uvw": Mode("uvw", "u", "v", "w"),
    "uvu": Mode("uv", "u", "v", "u"),
    "uvv": Mode("uv", "u", "v", "v"),
    "uuw": Mode("uw", "u", "u", "w"),
    "uuu": Mode("u", "u", "u", "u"),
    "uvuv": Mode("uv", "u", "v", "uv"),
    "uvu<v": Mode("p", "p", "p", "p", over_pairs=True),
    "u<vw": Mode("pw", "p", "p", "w", over_pairs=True),
}
_MODES = list(MODES)  # a mode's place here is its code


class ProductPath(NamedTuple):
    """One instruction of e3nn's ``TensorProduct``, its normalisation included in ``coefficient``:

    ``out[k, m3] += coefficient · Σ_{u, v} W · Σ_{m1, m2} C(m1, m2, m3) x[u, m1] y[v, m2]``

    where ``mode``, one of :data:`MODES`, says how u, v, k and the index of W hang together, and C is e3nn's
    ``wigner_3j(l1, l2, l3)``, of unit norm. Offsets count elements of a row in e3nn's ``mul_ir`` layout: x at
    ``x + u · (2 l1 + 1) + m1`` and so on; the weights are one block, row-major. ``w = -1``: without weights, W = 1.
    """

    mode: str
    l1: int
    l2: int
    l3: int
    mul1: int
    mul2: int
    mul3: int
    x: int
    y: int
    w: int
    out: int
    coefficient: float

    @property
    def sizes(self) -> dict[str, int]:
        """How far each subscript of the mode runs."""
        return {"u": self.mul1, "v": self.mul2, "w": self.mul3, "p": self.mul1 * (self.mul1 - 1) // 2}

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the block of weights, () without weights."""
        return () if self.w < 0 else tuple(self.sizes[letter] for letter in MODES[self.mode].weight)


class ProductProblem:
    """All paths of one product and the row widths: x [·, dim_x], y [·, dim_y], w [·, dim_w], out [·, dim_out].

    Paths may share inputs and outputs, and each has weights of its own; those without channels are left out.

    Raises:
        InputError: a path has an unknown mode, degrees that do not couple, multiplicities that its mode does not join,
            no weights where it needs them, shares them with another, or lies outside the rows.
    """

    def __init__(self, paths: Sequence[ProductPath], dim_x: int, dim_y: int, dim_w: int, dim_out: int) -> None:
        self.dim_x, self.dim_y, self.dim_w, self.dim_out = dim_x, dim_y, dim_w, dim_out
        for path in paths:
            self._check(path)
        blocks = sorted((path.w, prod(path.weight_shape)) for path in paths if path.w >= 0)
        for (start, size), (following, _) in pairwise(blocks):
            _require(start + size <= following, f"two paths share the weights from column {following} on")
        self.paths = tuple(path for path in paths if path.mul1 and path.mul2 and path.mul3)
        widths = dim_x, dim_y, dim_w, dim_out
        self.text = describe(widths, ((_MODES.index(path.mode), *path[1:]) for path in self.paths))

    @classmethod
    def from_text(cls, text: str) -> ProductProblem:
        """The problem whose :attr:`text` this is."""
        widths, rows = read(text, 4, len(ProductPath._fields))
        return cls([ProductPath(_MODES[code], *rest) for code, *rest in rows], *widths)

    def weighted(self) -> ProductProblem:
        """The same without the paths that have no weights."""
        paths = [path for path in self.paths if path.w >= 0]
        return ProductProblem(paths, self.dim_x, self.dim_y, self.dim_w, self.dim_out)

    def has_scalar_attributes(self) -> bool:
        """Whether in every path y holds scalars, each of which has a matrix of weights."""
        return all(path.mode == "uvw" and path.l2 == 0 for path in self.paths)

    def _check(self, path: ProductPath) -> None:
        if path.mode not in MODES:
            raise InputError(
                f"unknown mode {path.mode!r}, expected one of {', '.join(MODES)}{nearest(path.mode, MODES)}"
            )
        name = f"path {path.mode} {path.mul1} x l={path.l1}, {path.mul2} x l={path.l2} -> {path.mul3} x l={path.l3}"
        if not abs(path.l1 - path.l2) <= path.l3 <= path.l1 + path.l2:
            raise InputError(f"{name}: degrees {path.l1} and {path.l2} do not couple to {path.l3}")
        mode, sizes = MODES[path.mode], path.sizes
        if mode.over_pairs or mode.y == "u":
            _require(path.mul2 == path.mul1, f"{name}: this mode needs as many channels in y as in x")
        if mode.out != "w":
            count = prod(sizes[letter] for letter in mode.out)
            _require(path.mul3 == count, f"{name}: this mode gives {count} channels, not {path.mul3}")
        elif path.w < 0:
            _require(path.mode == "uuw" and path.mul3 == 1, f"{name}: this mode needs weights")
        blocks = (
            ("x", path.x, path.mul1 * (2 * path.l1 + 1), self.dim_x),
            ("y", path.y, path.mul2 * (2 * path.l2 + 1), self.dim_y),
            ("w", max(path.w, 0), prod(path.weight_shape) if path.w >= 0 else 0, self.dim_w),
            ("out", path.out, path.mul3 * (2 * path.l3 + 1), self.dim_out),
        )
        for operand, start, size, dim in blocks:
            _require(start >= 0 and start + size <= dim, f"{name}: lies outside the {dim} columns of {operand}")


def batch_size(*operands: Tensor) -> int:
    """B: the rows of the operands that have not just one to share."""
    return next((operand.shape[0] for operand in operands if operand.shape[0] != 1), 1)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
