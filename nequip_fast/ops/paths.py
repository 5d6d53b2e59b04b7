"""Paths of a 'uvu' tensor product as numbers: what every backend of ``conv`` is given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from e3nn import o3

from nequip_fast.errors import InputError


class Path(NamedTuple):
    """One instruction: ``out[u, m3] += coefficient · w[u] · Σ C(m1, m2, m3) x[u, m1] y[m2]``.

    C is e3nn's ``wigner_3j(l1, l2, l3)``, of unit norm. Offsets count elements of a row in e3nn's
    ``mul_ir`` layout: x, y and out at ``offset + u · (2l + 1) + m``, w at ``offset + u``.
    """

    l1: int
    l2: int
    l3: int
    mul: int
    x: int
    y: int
    w: int
    out: int
    coefficient: float

    def transposed(self) -> Path:
        """The path with x and out exchanged; ``C(l3, l2, l1)`` differs from C by (−1)^(l1+l2+l3)."""
        sign = -1 if (self.l1 + self.l2 + self.l3) % 2 else 1
        return Path(
            self.l3, self.l2, self.l1, self.mul, self.out, self.y, self.w, self.x, sign * self.coefficient
        )  # fmt: skip


class ConvProblem:
    """All paths of one convolution and the row widths: x [·, dim_x], y [·, dim_y], w [·, dim_w], out [·, dim_out]."""

    def __init__(self, paths: Sequence[Path], dim_x: int, dim_y: int, dim_w: int, dim_out: int) -> None:
        self.paths = tuple(paths)
        self.dim_x, self.dim_y, self.dim_w, self.dim_out = dim_x, dim_y, dim_w, dim_out
        self.l_max = max((max(path[:3]) for path in self.paths), default=0)
        # what the compiled operators take: the integer fields of all paths, flattened, and the coefficients
        self.integers = tuple(value for path in self.paths for value in path[:8])
        self.coefficients = tuple(path.coefficient for path in self.paths)

    @classmethod
    def from_irreps(
        cls,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        instructions: Sequence[tuple[int, int, int]],
    ) -> ConvProblem:
        """The problem of e3nn's ``TensorProduct(…, instructions)`` in mode 'uvu' with external weights.

        Normalisation is e3nn's default (``component``, ``element``): the coefficient of a path is
        √((2 l3 + 1) / n), n the number of paths that share its output.

        Args:
            instructions: ``(i_in1, i_in2, i_out)``, the weight of each being a block of mul_in1.

        Raises:
            InputError: an instruction joins irreps that do not multiply to its output, changes the
                multiplicity, or its second irrep has a multiplicity other than 1.
        """
        in1, in2, out = o3.Irreps(irreps_in1), o3.Irreps(irreps_in2), o3.Irreps(irreps_out)
        slices1, slices2, slices3 = in1.slices(), in2.slices(), out.slices()
        sharing = [sum(k == i_out for _, _, k in instructions) for i_out in range(len(out))]
        paths, dim_w = [], 0
        for i1, i2, i3 in instructions:
            (mul1, ir1), (mul2, ir2), (mul3, ir3) = in1[i1], in2[i2], out[i3]
            if ir3 not in ir1 * ir2 or mul1 != mul3 or mul2 != 1:
                raise InputError(
                    f"({i1}, {i2}, {i3}): {in1[i1]} x {in2[i2]} -> {out[i3]} is no 'uvu' path with one edge attribute"
                )
            coefficient = ((2 * ir3.l + 1) / sharing[i3]) ** 0.5
            starts = slices1[i1].start, slices2[i2].start, dim_w, slices3[i3].start
            paths.append(Path(ir1.l, ir2.l, ir3.l, mul1, *starts, coefficient))
            dim_w += mul1
        return cls(paths, in1.dim, in2.dim, dim_w, out.dim)


@lru_cache(maxsize=1024)
def transposed(integers: tuple[int, ...], coefficients: tuple[float, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The paths of the derivative with respect to x, in the form of :class:`ConvProblem`'s two attributes."""
    paths = [Path._make([*integers[8 * k : 8 * k + 8], c]).transposed() for k, c in enumerate(coefficients)]
    return tuple(value for path in paths for value in path[:8]), tuple(path.coefficient for path in paths)
