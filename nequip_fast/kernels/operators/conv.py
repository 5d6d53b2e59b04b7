"""``conv``."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from nequip_fast.kernels import conv, layout
from nequip_fast.kernels.operators.launch import contiguous, indices, launch, operator
from nequip_fast.kernels.table import HIDDEN_GROUP, Part, Table, irreps, table
from nequip_fast.kernels.tuning import Tile

KERNELS = [conv.sum_over_edges, conv.gradients_of_edges, layout.to_channel_last]


@operator("nequip_fast::triton_conv", mutates_args={})
def triton_conv(
    x: Tensor, y: Tensor, w: Tensor, receiver: Tensor, sender: Tensor, receiver_ptr: Tensor, receiver_order: Tensor,
    sender_ptr: Tensor, sender_order: Tensor, text: str,
) -> Tensor:  # fmt: skip
    """``conv``."""
    walk = receiver_ptr, receiver_order, sender
    return _sums(_channel_last(x, text, "x"), y, Weights(w), _NO_TANGENT, walk, table(text))


@operator("nequip_fast::triton_conv_tangent", mutates_args={})
def triton_conv_tangent(
    x: Tensor, y: Tensor, w: Tensor, dx: Tensor | None, dy: Tensor | None, dw: Tensor | None, receiver: Tensor,
    sender: Tensor, receiver_ptr: Tensor, receiver_order: Tensor, sender_ptr: Tensor, sender_order: Tensor, text: str,
) -> Tensor:  # fmt: skip
    """Its derivative along (dx, dy, dw)."""
    walk = receiver_ptr, receiver_order, sender
    along = dx if dx is None else _channel_last(dx, text, "x"), dy, dw
    return _sums(_channel_last(x, text, "x"), y, Weights(w), along, walk, table(text))


@operator("nequip_fast::triton_conv_gradient", mutates_args={})
def triton_conv_gradient(
    x: Tensor, y: Tensor, w: Tensor, g: Tensor, receiver: Tensor, sender: Tensor, receiver_ptr: Tensor,
    receiver_order: Tensor, sender_ptr: Tensor, sender_order: Tensor, text: str,
    want_x: bool, want_y: bool, want_w: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The derivatives of g · conv by x, y and w."""
    graph = receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order
    return _gradients(x, y, Weights(w), g, _NO_TANGENT, graph, text, (want_x, want_y, want_w))


@operator("nequip_fast::triton_conv_gradient_tangent", mutates_args={})
def triton_conv_gradient_tangent(
    x: Tensor, y: Tensor, w: Tensor, g: Tensor, dx: Tensor | None, dy: Tensor | None, dw: Tensor | None,
    receiver: Tensor, sender: Tensor, receiver_ptr: Tensor, receiver_order: Tensor, sender_ptr: Tensor,
    sender_order: Tensor, text: str, want_x: bool, want_y: bool, want_w: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The derivatives of those along (dx, dy, dw)."""
    graph = receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order
    return _gradients(x, y, Weights(w), g, (dx, dy, dw), graph, text, (want_x, want_y, want_w))


@operator("nequip_fast::triton_conv_of_rows", mutates_args={})
def triton_conv_of_rows(
    x: Tensor, y: Tensor, h: Tensor, matrix: Tensor, first: Tensor | None, receiver: Tensor, sender: Tensor,
    receiver_ptr: Tensor, receiver_order: Tensor, sender_ptr: Tensor, sender_order: Tensor, text: str, precision: str,
) -> Tensor:  # fmt: skip
    """``conv`` with weights formed in its kernels: see :mod:`nequip_fast.ops.conv_of_rows`."""
    walk, weights = (receiver_ptr, receiver_order, sender), Weights(h, matrix, first, precision)
    return _sums(_channel_last(x, text, "x"), y, weights, _NO_TANGENT, walk, weights.table(text))


@operator("nequip_fast::triton_conv_of_rows_gradient", mutates_args={})
def triton_conv_of_rows_gradient(
    x: Tensor, y: Tensor, h: Tensor, matrix: Tensor, first: Tensor | None, g: Tensor, receiver: Tensor,
    sender: Tensor, receiver_ptr: Tensor, receiver_order: Tensor, sender_ptr: Tensor, sender_order: Tensor, text: str,
    precision: str, want_x: bool, want_y: bool, want_h: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The derivatives of g · conv_of_rows by x, y and h."""
    graph = receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order
    weights = Weights(h, matrix, first, precision)
    return _gradients(x, y, weights, g, _NO_TANGENT, graph, text, (want_x, want_y, want_h))


Tangent = tuple[Tensor | None, Tensor | None, Tensor | None]
_NO_TANGENT: Tangent = (None, None, None)


class Weights(NamedTuple):
    """The weights w [E, W] themselves, or with ``matrix`` [rows, W] what they are formed from.

    w[e] = Σ_k rows[e, k] matrix[first[e] + k]; without ``first`` a product of matrices, computed as ``precision`` says.
    """

    rows: Tensor
    matrix: Tensor | None = None
    first: Tensor | None = None
    precision: str = "ieee"

    @property
    def multiplied(self) -> bool:
        """A product of matrices."""
        return self.matrix is not None and self.first is None

    def table(self, text: str, transposed: bool = False) -> Table:
        """Of the problem; a program that forms a product has few components to sum besides."""
        return table(text, transposed, HIDDEN_GROUP) if self.multiplied else table(text, transposed)

    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        """h, matrix and first, or any tensor where there is none."""
        w = self.rows.contiguous()
        matrix = w if self.matrix is None else self.matrix.contiguous()
        return w, matrix, w if self.first is None else indices(self.first)[0]

    def constants(self) -> dict[str, Any]:
        """What the kernels are told."""
        matrix = self.rows if self.matrix is None else self.matrix
        hidden = 0 if self.matrix is None else self.rows.shape[1]
        banded = self.first is not None
        return {"WIDTH_W": matrix.shape[1], "HIDDEN": hidden, "BANDED": banded, "PRECISION": self.precision}


def _sums(x: Tensor, y: Tensor, weights: Weights, d: Tangent, walk: tuple[Tensor, ...], paths: Table) -> Tensor:
    """The sums at each node of the walk's (pointer, order, node at the other end); x and dx channel-last."""
    pointer, order, neighbour = indices(*walk)
    (y,), (w, matrix, first) = contiguous(y), weights.arguments()
    nodes = pointer.shape[0] - 1
    out = (x.new_empty if paths.covers_output else x.new_zeros)(nodes, paths.width_out)
    for part in paths.parts:
        launch(
            conv.sum_over_edges, partial(_programs_of_nodes, part, nodes),
            out, x, y, w, *_or(d, (x, y, w)), matrix, first, pointer, order, neighbour,
            TABLE=part.text, WIDTH_X=paths.width_in, WIDTH_Y=y.shape[1], WIDTH_OUT=paths.width_out,
            **weights.constants(), **_along(d),
            tiles=part.tiles(x.dtype, any(t is not None for t in d), multiplied=weights.multiplied),
        )  # fmt: skip
    return out


def _gradients(
    x: Tensor, y: Tensor, weights: Weights, g: Tensor, d: Tangent, graph: tuple[Tensor, ...], text: str,
    want: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    receiver, sender, _, receiver_order, sender_ptr, sender_order = indices(*graph)
    dx, dy, dw = d
    g = _channel_last(g, text, "out")
    to_x = x.new_empty(0, x.shape[1])
    if want[0] and dy is None and dw is None and dx is not None:
        to_x = x.new_zeros(x.shape)  # it does not depend on x
    elif want[0]:
        walk = sender_ptr, sender_order, receiver
        to_x = _sums(g, y, weights, (None, dy, dw), walk, weights.table(text, transposed=True))
    paths = weights.table(text)
    w, matrix, first = weights.arguments()
    to_y = y.new_empty(paths.count_groups, *y.shape) if want[1] else y.new_empty(1, 0, y.shape[1])
    to_w = _gradients_of_weights(weights, paths) if want[2] else w.new_empty(0, w.shape[1])
    if want[1] or want[2]:
        x, (y,) = _channel_last(x, text, "x"), contiguous(y)
        along = (None if dx is None else _channel_last(dx, text, "x")), dy, dw
        edges, before = sender.shape[0], 0
        # a program that multiplies matrices both for w and for h would run out of registers
        kinds = [(True, False), (False, True)] if weights.multiplied and want[1] and want[2] else [want[1:]]
        for part in paths.parts:
            groups = len(part.groups)
            for want_y, want_w in kinds:
                launch(
                    conv.gradients_of_edges,
                    partial(_programs_of_edges, groups, edges),
                    to_y, to_w, x, y, w, g, *_or(along, (x, y, w)), matrix, first,
                    sender, receiver, receiver_order, edges,
                    TABLE=part.text, FIRST=before, WIDTH_X=x.shape[1], WIDTH_Y=y.shape[1], WIDTH_OUT=g.shape[1],
                    WANT_Y=want_y, WANT_W=want_w, **weights.constants(), **_along(along),
                    tiles=part.tiles(x.dtype, any(t is not None for t in d), int(y.shape[1]), weights.multiplied),
                )  # fmt: skip
            before += groups
    return to_x, to_y.sum(0), to_w if to_w.dim() == 2 else to_w.sum(0)


def _programs_of_nodes(part: Part, nodes: Any, tile: Tile) -> Any:
    return nodes * part.blocks(tile["CHANNELS"])


def _programs_of_edges(groups: int, edges: Any, tile: Tile) -> Any:
    return groups * triton.cdiv(edges, tile["EDGES"])


def _gradients_of_weights(weights: Weights, paths: Table) -> Tensor:
    """[E, W], zero where no path has weights; of what weights are formed from, [groups, E, H] to be summed."""
    w = weights.rows
    return w.new_zeros(w.shape) if weights.matrix is None else w.new_empty(paths.count_groups, *w.shape)


_COPY_TILES = [{"SIZE": 128, "num_warps": warps} for warps in (4, 1, 2)]


def _channel_last(rows: Tensor, text: str, of: str) -> Tensor:
    """Rows of ``x`` or ``out`` as the kernels read them."""
    copied = irreps(text, of)
    if copied == "[]":
        return rows.contiguous()
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    launch(
        layout.to_channel_last, lambda tile: rows.shape[0], out, rows.contiguous(), tiles=_COPY_TILES,
        IRREPS=copied, WIDTH=rows.shape[1],
    )  # fmt: skip
    return out


def _or(d: Tangent, p: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Any tensor where there is none: the kernels are told not to read it."""
    return contiguous(*(there if value is None else value for value, there in zip(d, p, strict=True)))


def _along(d: Tangent) -> dict[str, bool]:
    return {name: value is not None for name, value in zip(("ALONG_X", "ALONG_Y", "ALONG_W"), d, strict=True)}
