"""Paths of a 'uvu' tensor product as numbers: what every backend of ``conv`` is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from e3nn import o3

from nequip_fast.errors import InputError, nearest
from nequip_fast.ops.description import describe, read

IRREP_NORMALIZATIONS = ("component", "norm", "none")
PATH_NORMALIZATIONS = ("element", "path", "none")


class Path(NamedTuple):
    """One edge attribute's share of an instruction.

    ``out[u, m3] += coefficient · W[u] · Σ C(m1, m2, m3) x[u, m1] y[m2]``, where C is e3nn's
    ``wigner_3j(l1, l2, l3)``, of unit norm. Offsets count elements of a row in e3nn's ``mul_ir`` layout: x, y and out
    at ``offset + u · (2l + 1) + m``; W[u] at ``w + u · w_stride`` of the weights. ``w_stride = 0``: the path has no
    weights, W = 1.
    """

    l1: int
    l2: int
    l3: int
    mul: int
    x: int
    y: int
    w: int
    w_stride: int
    out: int
    coefficient: float


class ConvProblem:
    """All paths of one convolution and the row widths: x [·, dim_x], y [·, dim_y], w [·, dim_w], out [·, dim_out].

    Paths may share irreps of x, y and out, but neither weights nor parts of an irrep.
    """

    def __init__(self, paths: Sequence[Path], dim_x: int, dim_y: int, dim_w: int, dim_out: int) -> None:
        self.paths = tuple(paths)
        self.dim_x, self.dim_y, self.dim_w, self.dim_out = dim_x, dim_y, dim_w, dim_out
        self.text = describe((dim_x, dim_y, dim_w, dim_out), self.paths)

    @classmethod
    def from_text(cls, text: str) -> ConvProblem:
        """The problem whose :attr:`text` this is."""
        widths, rows = read(text, 4, len(Path._fields))
        return cls([Path._make(row) for row in rows], *widths)

    def weighted(self) -> ConvProblem:
        """The same without the paths that have no weights."""
        paths = [path for path in self.paths if path.w_stride]
        return ConvProblem(paths, self.dim_x, self.dim_y, self.dim_w, self.dim_out)

    @classmethod
    def from_irreps(
        cls,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        instructions: Sequence[tuple],
        irrep_normalization: str = "component",
        path_normalization: str = "element",
    ) -> ConvProblem:
        """The problem of e3nn's ``TensorProduct(…, instructions)`` in mode 'uvu' with a row of weights for each edge.

        Args:
            instructions: e3nn's ``(i_in1, i_in2, i_out, "uvu", has_weight, path_weight)``, of which the last three
                may be left out ("uvu", True, 1). The weights of one are a block [mul_in1, mul_in2].
            irrep_normalization, path_normalization: as e3nn's ``TensorProduct`` has them.

        Raises:
            InputError: an instruction joins irreps that do not multiply to its output, changes the multiplicity, names
                an irrep that is not there or a mode other than 'uvu'; or a normalization is unknown.
        """
        in1, in2, out = o3.Irreps(irreps_in1), o3.Irreps(irreps_in2), o3.Irreps(irreps_out)
        _check_name("irrep_normalization", irrep_normalization, IRREP_NORMALIZATIONS)
        _check_name("path_normalization", path_normalization, PATH_NORMALIZATIONS)
        complete = [_checked(instruction, in1, in2, out) for instruction in instructions]
        slices1, slices2, slices3 = in1.slices(), in2.slices(), out.slices()
        paths, dim_w = [], 0
        for i1, i2, i3, _, has_weight, path_weight in complete:
            (mul, ir1), (mul2, ir2), (_, ir3) = in1[i1], in2[i2], out[i3]
            scale = {"component": ir3.dim, "norm": ir1.dim * ir2.dim, "none": 1}[irrep_normalization]
            elements = [in2[other[1]].mul for other in complete if other[2] == i3]
            fan_in = {"element": sum(elements), "path": mul2 * len(elements), "none": 1}[path_normalization]
            coefficient = (path_weight * scale / max(fan_in, 1)) ** 0.5
            for v in range(mul2 if mul else 0):
                y = slices2[i2].start + v * ir2.dim
                w, w_stride = (dim_w + v, mul2) if has_weight else (0, 0)
                places = slices1[i1].start, y, w, w_stride, slices3[i3].start
                paths.append(Path(ir1.l, ir2.l, ir3.l, mul, *places, coefficient))
            dim_w += mul * mul2 if has_weight else 0
        return cls(paths, in1.dim, in2.dim, dim_w, out.dim)


def _check_name(argument: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{argument}={value!r}, expected one of {', '.join(known)}{nearest(value, known)}")


def _checked(instruction: tuple, in1: o3.Irreps, in2: o3.Irreps, out: o3.Irreps) -> tuple:
    """The instruction with all six entries."""
    if not 3 <= len(instruction) <= 6:
        raise InputError(f"instruction {instruction}: expected (i_in1, i_in2, i_out, 'uvu', has_weight, path_weight)")
    complete = (*instruction, *("uvu", True, 1.0)[len(instruction) - 3 :])
    i1, i2, i3, mode = complete[:4]
    if mode != "uvu":
        raise InputError(f"instruction {instruction}: conv is for mode 'uvu', not {mode!r}; see o3.TensorProduct")
    if not all(0 <= i < len(irreps) for i, irreps in ((i1, in1), (i2, in2), (i3, out))):
        raise InputError(f"instruction {instruction}: there are {len(in1)}, {len(in2)} and {len(out)} irreps")
    (mul1, ir1), (_, ir2), (mul3, ir3) = in1[i1], in2[i2], out[i3]
    if ir3 not in ir1 * ir2 or mul1 != mul3:
        raise InputError(f"instruction {instruction}: {in1[i1]} x {in2[i2]} -> {out[i3]} is no 'uvu' path")
    return complete
