"""A problem as kernels are given it: one string with every number that does not depend on the atoms.

A string, since that is what ``torch.compile`` hands to a kernel unchanged and what Triton tells one kernel from another
by. Kernels read it while they are compiled, with the functions below that are marked ``constexpr_function``; these use
nothing but Python's own, because ``torch.compile`` copies them beside the kernel.

    table  [group, …]                          the work of one program: a few paths with the same channels
    group  [channels, outputs, [path, …]]      outputs: [[column, components], …], rows in e3nn's ``mul_ir`` layout;
                                               [column, components, 1]: added to what an earlier part wrote there
    path   [x, y, w, w_stride, output, n1, n2, n3, [[m1, [[m2, c], …]], …] for each m3]

x: the column of the first component in rows that are channel-last, component m of channel u at ``x + m · channels +
u``. y: the column of the first component. w: the column of the first channel's weight, the next ``w_stride`` further
on; ``w_stride`` 0: the path has no weights. output: which of the group's.

A path adds ``Σ_{m1} x[u, m1] M(m1, m3)`` with ``M(m1, m3) = Σ_{m2} c y[m2]`` to component m3, times the weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from json import dumps
from typing import Any

import torch
import triton
from e3nn import o3
from torch.utils._python_dispatch import _disable_current_modes

from nequip_fast.kernels.tuning import Tile
from nequip_fast.ops import backend
from nequip_fast.ops.paths import ConvProblem, Path

_LARGEST_GROUP = 40  # components that a program sums: beyond it their registers run short
HIDDEN_GROUP = 20  # the same where it also forms weights by matrix products
_LARGEST_PART = 150  # coefficients: the time that Triton takes for a kernel grows with their square
_LARGEST_SHARE = 300  # coefficients of a group; of paths to one output, the rest adds to it
_SMALLEST = 1e-12  # coefficient that is not rounding
_REGISTERS = 128  # of a lane, for components that live at the same time
_MOST = 4  # elements of a block that a lane holds
_INTERPRETED = 16  # the same where kernels are interpreted, and a block takes the same time whatever its size


class Table:
    """What the two kernels of ``conv`` need for one direction: from rows of x to rows of out.

    Args:
        problem: the paths.
        transposed: from rows of out to rows of x, as the gradient of x does.
        largest: components, at most, of a group with more than one output.
    """

    def __init__(self, problem: ConvProblem, transposed: bool = False, largest: int = _LARGEST_GROUP) -> None:
        _check(problem)
        paths = [_transposed(path) for path in problem.paths] if transposed else list(problem.paths)
        widths = (problem.dim_out, problem.dim_x) if transposed else (problem.dim_x, problem.dim_out)
        self.width_in, self.width_out = widths
        coupled = [(path, _coupling(path, transposed)) for path in paths]
        groups = _described(_grouped(coupled, largest))
        self.count_groups = len(groups)
        self.parts = [Part(some) for some in together(groups)]
        outputs = {column: group[0] * components for group in groups for column, components, *_ in group[1]}
        self.covers_output = sum(outputs.values()) == self.width_out


class Part:
    """As many groups of a table as one kernel takes."""

    def __init__(self, groups: list[Any]) -> None:
        self.groups = groups
        self.text = dumps(groups, separators=(",", ":"))
        self._tiles: dict[Any, list[Tile]] = {}

    def blocks(self, channels: int) -> int:
        """Blocks of so many channels in all groups."""
        return blocks_before(self.text, len(self.groups), channels)

    def tiles(self, dtype: torch.dtype, tangent: bool, width_y: int = 0, multiplied: bool = False) -> list[Tile]:
        """Blocks of edges and channels: the first by rule of thumb, others around it.

        Args:
            dtype: of the elements.
            tangent: the derivative along one is computed.
            width_y: columns of y whose gradients a program sums; 0: it sums components of the group's outputs.
            multiplied: weights are products of matrices.
        """
        asked = dtype, tangent, width_y, multiplied
        if asked not in self._tiles:
            self._tiles[asked] = self._multiplied_tiles() if multiplied else self._tiles_for(dtype, tangent, width_y)
        return self._tiles[asked]

    def _multiplied_tiles(self) -> list[Tile]:
        """From the least that tensor cores take on."""
        widest = triton.next_power_of_2(max(group[0] for group in self.groups))
        sizes = (16, 32, 4), (16, 32, 2), (16, 32, 8), (16, 16, 4), (32, 32, 4), (32, 32, 8)
        return [
            {"EDGES": edges, "CHANNELS": max(16, min(channels, widest)), "num_warps": warps, "num_stages": 1}
            for edges, channels, warps in sizes
        ]

    def _tiles_for(self, dtype: torch.dtype, tangent: bool, width_y: int) -> list[Tile]:
        """From one warp with a block as large as its registers hold on."""
        live = max(
            (width_y or sum(n3 for _, n3, *_ in outputs))
            + max(2 * n1 + (n2 + n3 if width_y else 0) for *_, n1, n2, n3, _ in paths)
            for _, outputs, paths in self.groups
        )
        available = _REGISTERS * 4 // dtype.itemsize // (1.25 * live if tangent else live)
        each = 1 << max(0, int(available).bit_length() - 1)
        widest = max(group[0] for group in self.groups)
        channels = min(32, triton.next_power_of_2(widest))
        each = _INTERPRETED if backend.INTERPRETED else min(each, _MOST)
        lanes = 32 * each
        return [
            {"EDGES": max(1, lanes * more // width), "CHANNELS": width, "num_warps": warps}
            for width in dict.fromkeys((channels, max(8, channels // 2), max(4, channels // 4)))
            for more, warps in ((1, 1), (2, 1), (2, 2), (4, 2), (4, 4))
        ]


@lru_cache(maxsize=256)
def table(text: str, transposed: bool = False, largest: int = _LARGEST_GROUP) -> Table:
    """The table of the problem with this text."""
    with _disable_current_modes():  # torch may be tracing the operator that asks
        return Table(ConvProblem.from_text(text), transposed, largest)


@lru_cache(maxsize=256)
def irreps(text: str, of: str) -> str:
    """[[first column, channels, components], …] of the ``x`` or ``out`` of a problem; none if they need no copy."""
    found = {}
    for path in ConvProblem.from_text(text).paths:
        start, l = (path.x, path.l1) if of == "x" else (path.out, path.l3)
        found[start] = [start, path.mul, 2 * l + 1]
    alike = all(min(channels, components) == 1 for _, channels, components in found.values())
    return dumps([] if alike else list(found.values()), separators=(",", ":"))


@lru_cache(maxsize=64)
def harmonics_table(degrees: tuple[int, ...], normalization: str) -> str:
    """See :mod:`nequip_fast.kernels.spherical_harmonics`: gradients are D = c · C(l − 1, 1, l), C e3nn's ``wigner_3j``.

    Both couple a vector and harmonics of degree l − 1 to those of l, which can be done in one way but for the factor c.
    It follows from Y at one point, where Y(l) is 1/l times the gradient along the vector there.
    """
    with _disable_current_modes():
        return _harmonics_table(degrees, normalization)


def _harmonics_table(degrees: tuple[int, ...], normalization: str) -> str:
    # not above: that module registers the derivatives of the operators that take this table
    from nequip_fast.ops.spherical_harmonics import scale, spherical_harmonics_reference

    v = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)
    values = spherical_harmonics_reference(v, range(max(degrees) + 1), normalize=False)
    gradients = []
    for l in range(1, max(degrees) + 1):
        coupling = o3.wigner_3j(l - 1, 1, l, dtype=torch.float64)
        y, along = values[l * l : (l + 1) ** 2], torch.einsum("kam,k,a->m", coupling, values[(l - 1) ** 2 : l * l], v)
        coupling *= l * float(y @ y) / float(y @ along)
        gradients.append([_nonzero(coupling[:, :, m]) for m in range(2 * l + 1)])
    wanted, column = [], 0
    for l in degrees:
        wanted.append([l, column, scale(l, normalization)])
        column += 2 * l + 1
    return dumps([wanted, gradients], separators=(",", ":"))


def _nonzero(matrix: torch.Tensor) -> list[list[Any]]:
    """[row, column, element] of each element that is not zero."""
    return [[i, j, float(matrix[i, j])] for i, j in (matrix.abs() > _SMALLEST).nonzero().tolist()]


def _check(problem: ConvProblem) -> None:
    """A kernel must neither leave a row nor write twice what two paths share.

    Raises:
        RuntimeError: as the compiled operators do.
    """
    for operand, dim, blocks in (
        ("x", problem.dim_x, {(path.x, path.mul * (2 * path.l1 + 1)) for path in problem.paths}),
        ("y", problem.dim_y, {(path.y, 2 * path.l2 + 1) for path in problem.paths}),
        ("out", problem.dim_out, {(path.out, path.mul * (2 * path.l3 + 1)) for path in problem.paths}),
    ):
        end = 0
        for start, length in sorted(blocks):
            if start < end:
                raise RuntimeError(f"conv: paths overlap in columns {start} … {end - 1} of {operand}")
            end = start + length
        if end > dim:
            raise RuntimeError(f"conv: a path does not fit the rows of {operand}, which have {dim} columns")
    weights = [path.w + u * path.w_stride for path in problem.paths if path.w_stride for u in range(path.mul)]
    if len(set(weights)) < len(weights):
        raise RuntimeError("conv: paths overlap in their weights")
    if weights and not 0 <= min(weights) <= max(weights) < problem.dim_w:
        raise RuntimeError(f"conv: the weights of a path do not fit the rows of w, which have {problem.dim_w} columns")


def _transposed(path: Path) -> Path:
    return path._replace(l1=path.l3, l3=path.l1, x=path.out, out=path.x)


def _coupling(path: Path, transposed: bool) -> torch.Tensor:
    """[n1, n2, n3], the coefficient included."""
    degrees = (path.l3, path.l2, path.l1) if transposed else (path.l1, path.l2, path.l3)
    coupling = o3.wigner_3j(*degrees, dtype=torch.float64) * path.coefficient
    return coupling.permute(2, 1, 0) if transposed else coupling


Coupled = tuple[Path, torch.Tensor]


def _grouped(coupled: Sequence[Coupled], largest: int) -> list[list[Coupled]]:
    """Paths to the same output go together, as only one program may write it; then those that read the same x."""
    outputs: dict[int, list[Coupled]] = {}
    for path, coupling in coupled:
        outputs.setdefault(path.out, []).append((path, coupling))
    groups: list[list[Coupled]] = []
    sizes: list[int] = []
    for paths in sorted(outputs.values(), key=lambda paths: (paths[0][0].mul, paths[0][0].x, paths[0][0].out)):
        first, size = paths[0][0], 2 * paths[0][0].l3 + 1
        if groups and sizes[-1] + size <= largest:
            last = groups[-1][-1][0]
            if (last.mul, last.x) == (first.mul, first.x):
                groups[-1] += paths
                sizes[-1] += size
                continue
        groups.append(list(paths))
        sizes.append(size)
    return [share for group in groups for share in _shares(group)]


def _shares(group: list[Coupled]) -> list[list[Coupled]]:
    """The group in pieces, each with no more coefficients than a group should have."""
    shares: list[list[Coupled]] = [[]]
    free = _LARGEST_SHARE
    for path, coupling in group:
        size = int((coupling.abs() > _SMALLEST).sum())
        if shares[-1] and size > free:
            shares.append([])
            free = _LARGEST_SHARE
        shares[-1].append((path, coupling))
        free -= size
    return shares


def together(groups: Sequence[Any]) -> list[list[Any]]:
    """Groups in a row with no more coefficients than a kernel should have, or one with more.

    What adds to an output comes in a later kernel than what wrote it.
    """
    parts: list[list[Any]] = []
    free = 0
    for group in groups:
        size = sum(len(terms) for path in group[2] for component in path[8] for _, terms in component)
        if not parts or size > free or any(len(output) > 2 for output in group[1]):
            parts.append([])
            free = _LARGEST_PART
        parts[-1].append(group)
        free -= size
    return parts


def _described(groups: Sequence[Sequence[Coupled]]) -> list[Any]:
    written: set[int] = set()
    described = []
    for group in groups:
        outputs = {path.out: 2 * path.l3 + 1 for path, _ in group}
        numbers = {out: i for i, out in enumerate(outputs)}
        rows = [
            [
                path.x, path.y, path.w, path.w_stride, numbers[path.out],
                2 * path.l1 + 1, 2 * path.l2 + 1, 2 * path.l3 + 1, coupled_components(coupling),
            ]
            for path, coupling in group
        ]  # fmt: skip
        described.append(
            [group[0][0].mul, [[*item, 1] if item[0] in written else [*item] for item in outputs.items()], rows]
        )
        written |= outputs.keys()
    return described


def coupled_components(coupling: torch.Tensor) -> list[Any]:
    """For each m3 the m1 that reach it, with the m2 and the coefficients."""
    result = []
    for component in coupling.permute(2, 0, 1).tolist():
        terms = [[m1, [[m2, c] for m2, c in enumerate(row) if abs(c) > _SMALLEST]] for m1, row in enumerate(component)]
        result.append([term for term in terms if term[1]])
    return result


# --- what kernels read ---


@triton.constexpr_function
def decoded(text, known={}):  # noqa: B006  kept between calls: a table is parsed once
    """The lists that a text holds."""
    if text not in known:
        import json

        known[text] = json.loads(text)
    return known[text]


@triton.constexpr_function
def count_groups(text):
    """How many programs a node, or an edge, has, their channels all in one block."""
    return len(decoded(text))


@triton.constexpr_function
def blocks_before(text, group, size):
    """Blocks of ``size`` channels of the groups before this one."""
    return sum(-(-entry[0] // size) for entry in decoded(text)[:group])


@triton.constexpr_function
def channels_of(text, group):
    """Channels of a group."""
    return decoded(text)[group][0]


@triton.constexpr_function
def count_outputs(text, group):
    """Outputs of a group."""
    return len(decoded(text)[group][1])


@triton.constexpr_function
def output_column(text, group, output):
    """Where an output begins in a row."""
    return decoded(text)[group][1][output][0]


@triton.constexpr_function
def output_components(text, group, output):
    """Components of an output."""
    return decoded(text)[group][1][output][1]


@triton.constexpr_function
def components_before(text, group, output):
    """Components of the outputs before this one; of all for the number of outputs."""
    return sum(entry[1] for entry in decoded(text)[group][1][:output])


@triton.constexpr_function
def output_adds(text, group, output):
    """Whether an earlier part has written it."""
    return len(decoded(text)[group][1][output]) > 2


@triton.constexpr_function
def count_paths(text, group):
    """Paths of a group."""
    return len(decoded(text)[group][2])


@triton.constexpr_function
def path_entry(text, group, path, entry):
    """0: x, 1: y, 2: w, 3: w_stride, 4: output, 5: n1, 6: n2, 7: n3."""
    return decoded(text)[group][2][path][entry]


@triton.constexpr_function
def count_m1(text, group, path, m3):
    """How many components of x reach component m3."""
    return len(decoded(text)[group][2][path][8][m3])


@triton.constexpr_function
def m1_of(text, group, path, m3, i):
    """The i-th of them."""
    return decoded(text)[group][2][path][8][m3][i][0]


@triton.constexpr_function
def count_terms(text, group, path, m3, i):
    """How many components of y it is multiplied with."""
    return len(decoded(text)[group][2][path][8][m3][i][1])


@triton.constexpr_function
def m2_of(text, group, path, m3, i, k):
    """The k-th of these components."""
    return decoded(text)[group][2][path][8][m3][i][1][k][0]


@triton.constexpr_function
def coefficient_of(text, group, path, m3, i, k):
    """Its coefficient."""
    return decoded(text)[group][2][path][8][m3][i][1][k][1]
