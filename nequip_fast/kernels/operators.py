"""The operators in Triton, registered so that ``torch.compile``, ``torch.export`` and AOTInductor see their kernels.

Same signatures and meaning as the compiled ones in csrc/register.cpp, whose names begin without ``triton_``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import custom_op, triton_op, wrap_triton

from nequip_fast.kernels import conv, gate, layout, segment_sum
from nequip_fast.kernels import spherical_harmonics as harmonics
from nequip_fast.kernels.table import Table, harmonics_table, irreps, table
from nequip_fast.ops import backend

# Interpreted kernels are no part of a graph: an operator that runs them is opaque to torch.compile.
operator: Any = custom_op if backend.INTERPRETED else triton_op


def launch(kernel: Any, programs: Any, *arguments: Any, **constants: Any) -> None:
    """Run so many programs of a kernel, on the device of its first argument."""
    if torch.version.cuda is None:
        (kernel if backend.INTERPRETED else wrap_triton(kernel))[(programs,)](*arguments, **constants)
        return
    with torch.cuda.device_of(arguments[0]):  # Triton's own choice is the current device
        (kernel if backend.INTERPRETED else wrap_triton(kernel))[(programs,)](*arguments, **constants)


def _indices(*tensors: Tensor) -> tuple[Tensor, ...]:
    """As the kernels read them."""
    if any(tensor.dtype != torch.int64 for tensor in tensors):
        raise RuntimeError("the tensors of a graph must be int64")
    return _rows(*tensors)


# --- conv ---


@operator("nequip_fast::triton_conv", mutates_args={})
def triton_conv(
    x: Tensor, y: Tensor, w: Tensor, receiver: Tensor, sender: Tensor, receiver_ptr: Tensor, receiver_order: Tensor,
    sender_ptr: Tensor, sender_order: Tensor, text: str,
) -> Tensor:  # fmt: skip
    """``conv``."""
    walk = receiver_ptr, receiver_order, sender
    return _sums(_channel_last(x, text, "x"), y, w, (None, None, None), walk, table(text))


@operator("nequip_fast::triton_conv_tangent", mutates_args={})
def triton_conv_tangent(
    x: Tensor, y: Tensor, w: Tensor, dx: Tensor | None, dy: Tensor | None, dw: Tensor | None, receiver: Tensor,
    sender: Tensor, receiver_ptr: Tensor, receiver_order: Tensor, sender_ptr: Tensor, sender_order: Tensor, text: str,
) -> Tensor:  # fmt: skip
    """Its derivative along (dx, dy, dw)."""
    walk = receiver_ptr, receiver_order, sender
    along = dx if dx is None else _channel_last(dx, text, "x"), dy, dw
    return _sums(_channel_last(x, text, "x"), y, w, along, walk, table(text))


@operator("nequip_fast::triton_conv_gradient", mutates_args={})
def triton_conv_gradient(
    x: Tensor, y: Tensor, w: Tensor, g: Tensor, receiver: Tensor, sender: Tensor, receiver_ptr: Tensor,
    receiver_order: Tensor, sender_ptr: Tensor, sender_order: Tensor, text: str,
    want_x: bool, want_y: bool, want_w: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The derivatives of g · conv by x, y and w."""
    graph = receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order
    return _gradients(x, y, w, g, (None, None, None), graph, text, (want_x, want_y, want_w))


@operator("nequip_fast::triton_conv_gradient_tangent", mutates_args={})
def triton_conv_gradient_tangent(
    x: Tensor, y: Tensor, w: Tensor, g: Tensor, dx: Tensor | None, dy: Tensor | None, dw: Tensor | None,
    receiver: Tensor, sender: Tensor, receiver_ptr: Tensor, receiver_order: Tensor, sender_ptr: Tensor,
    sender_order: Tensor, text: str, want_x: bool, want_y: bool, want_w: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The derivatives of those along (dx, dy, dw)."""
    graph = receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order
    return _gradients(x, y, w, g, (dx, dy, dw), graph, text, (want_x, want_y, want_w))


Tangent = tuple[Tensor | None, Tensor | None, Tensor | None]


def _sums(x: Tensor, y: Tensor, w: Tensor, d: Tangent, walk: tuple[Tensor, ...], paths: Table) -> Tensor:
    """The sums at each node of the walk's (pointer, order, node at the other end); x and dx channel-last."""
    pointer, order, neighbour = _indices(*walk)
    y, w = _rows(y, w)
    nodes = pointer.shape[0] - 1
    out = (x.new_empty if paths.covers_output else x.new_zeros)(nodes, paths.width_out)
    for part in paths.parts:
        tile = part.tile(x.dtype, any(t is not None for t in d))
        launch(
            conv.sum_over_edges, nodes * part.blocks(tile["CHANNELS"]),
            out, x, y, w, *_or(d, (x, y, w)), pointer, order, neighbour,
            TABLE=part.text, WIDTH_X=paths.width_in, WIDTH_Y=y.shape[1], WIDTH_W=w.shape[1], WIDTH_OUT=paths.width_out,
            **_along(d), **tile,
        )  # fmt: skip
    return out


def _gradients(
    x: Tensor, y: Tensor, w: Tensor, g: Tensor, d: Tangent, graph: tuple[Tensor, ...], text: str,
    want: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    receiver, sender, _, receiver_order, sender_ptr, sender_order = _indices(*graph)
    dx, dy, dw = d
    g = _channel_last(g, text, "out")
    to_x = x.new_empty(0, x.shape[1])
    if want[0] and dy is None and dw is None and dx is not None:
        to_x = x.new_zeros(x.shape)  # it does not depend on x
    elif want[0]:
        to_x = _sums(g, y, w, (None, dy, dw), (sender_ptr, sender_order, receiver), table(text, transposed=True))
    paths = table(text)
    to_y = y.new_empty(paths.count_groups, *y.shape) if want[1] else y.new_empty(1, 0, y.shape[1])
    to_w = w.new_zeros(w.shape) if want[2] else w.new_empty(0, w.shape[1])
    if want[1] or want[2]:
        x, (y, w) = _channel_last(x, text, "x"), _rows(y, w)
        along = (None if dx is None else _channel_last(dx, text, "x")), dy, dw
        first, edges = 0, sender.shape[0]
        for part in paths.parts:
            tile = part.tile(x.dtype, any(t is not None for t in d), y.shape[1])
            launch(
                conv.gradients_of_edges, len(part.groups) * triton.cdiv(edges, tile["EDGES"]),
                to_y, to_w, x, y, w, g, *_or(along, (x, y, w)), sender, receiver, receiver_order, edges,
                TABLE=part.text, FIRST=first, WIDTH_X=x.shape[1], WIDTH_Y=y.shape[1], WIDTH_W=w.shape[1],
                WIDTH_OUT=g.shape[1], WANT_Y=want[1], WANT_W=want[2], **_along(along), **tile,
            )  # fmt: skip
            first += len(part.groups)
    return to_x, to_y.sum(0), to_w


def _channel_last(rows: Tensor, text: str, of: str) -> Tensor:
    """Rows of ``x`` or ``out`` as the kernels read them."""
    copied = irreps(text, of)
    if copied == "[]":
        return rows.contiguous()
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    launch(layout.to_channel_last, rows.shape[0], out, rows.contiguous(), IRREPS=copied, WIDTH=rows.shape[1], SIZE=128)
    return out


def _rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def _or(d: Tangent, p: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Any tensor where there is none: the kernels are told not to read it."""
    return _rows(*(there if value is None else value for value, there in zip(d, p, strict=True)))


def _along(d: Tangent) -> dict[str, bool]:
    return {name: value is not None for name, value in zip(("ALONG_X", "ALONG_Y", "ALONG_W"), d, strict=True)}


# --- segment_sum ---


@operator("nequip_fast::triton_segment_sum", mutates_args={})
def triton_segment_sum(m: Tensor, ptr: Tensor, order: Tensor, receiver: Tensor) -> Tensor:
    """``segment_sum``."""
    width, nodes = int(m.shape[1]), ptr.shape[0] - 1
    columns = min(128, triton.next_power_of_2(max(width, 1)))
    blocks = triton.cdiv(width, columns)
    out = m.new_empty(nodes, width)
    launch(
        segment_sum.segment_sum, nodes * blocks, out, m.contiguous(), *_indices(ptr, order),
        WIDTH=width, BLOCKS=max(1, blocks), EDGES=max(1, 256 // columns), COLUMNS=columns, num_warps=2,
    )  # fmt: skip
    return out


# --- gate ---


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
    _launch_gate(gate.gate_vjp, (to_x, *_rows(x, g)), x, segments, width)
    return to_x


@operator("nequip_fast::triton_gate_vjp_grad", mutates_args={})
def triton_gate_vjp_grad(x: Tensor, g: Tensor, c: Tensor, text: str) -> tuple[Tensor, Tensor]:
    """The derivatives of c · gate_vjp by x and g."""
    segments, width, reads_all = _gate_table(text)
    to_x = x.new_empty(x.shape) if reads_all else x.new_zeros(x.shape)
    to_g = g.new_empty(g.shape)
    _launch_gate(gate.gate_vjp_grad, (to_x, to_g, *_rows(x, g, c)), x, segments, width)
    return to_x, to_g


@lru_cache(maxsize=256)
def _gate_table(text: str) -> tuple[str, int, bool]:
    """(the segments, the width of the result, whether all of the input is read)."""
    from nequip_fast.ops.gate import GateProblem  # not above: that module registers these operators' derivatives

    problem = GateProblem.from_text(text)
    read = sum(s.mul * (s.dim + (s.gate >= 0)) for s in problem.segments)
    return json.dumps(problem.segments, separators=(",", ":")), problem.dim_out, read == problem.dim_in


def _launch_gate(kernel: Any, tensors: tuple[Tensor, ...], x: Tensor, segments: str, width: int) -> None:
    rows, per_program = x.numel() // max(x.shape[-1], 1), 4
    launch(
        kernel, triton.cdiv(rows, per_program), *tensors, rows,
        SEGMENTS=segments, WIDTH_IN=x.shape[-1], WIDTH_OUT=width, ROWS=per_program, CHANNELS=32, num_warps=1,
    )  # fmt: skip


# --- spherical_harmonics ---


@operator("nequip_fast::triton_spherical_harmonics", mutates_args={})
def triton_spherical_harmonics(vectors: Tensor, degrees: Sequence[int], normalization: str, normalize: bool) -> Tensor:
    """``spherical_harmonics``."""
    out = vectors.new_empty(*vectors.shape[:-1], sum(2 * l + 1 for l in degrees))
    _launch_harmonics(harmonics.spherical_harmonics, (out, vectors), out, degrees, normalization, normalize)
    return out


@operator("nequip_fast::triton_spherical_harmonics_vjp", mutates_args={})
def triton_spherical_harmonics_vjp(
    vectors: Tensor, g: Tensor, degrees: Sequence[int], normalization: str, normalize: bool
) -> Tensor:
    """The derivative of g · spherical_harmonics by the vectors."""
    to_v = vectors.new_empty(vectors.shape)
    _launch_harmonics(harmonics.spherical_harmonics_vjp, (to_v, vectors, g), g, degrees, normalization, normalize)
    return to_v


@operator("nequip_fast::triton_spherical_harmonics_vjp_grad", mutates_args={})
def triton_spherical_harmonics_vjp_grad(
    vectors: Tensor, g: Tensor, c: Tensor, degrees: Sequence[int], normalization: str, normalize: bool
) -> tuple[Tensor, Tensor]:
    """The derivatives of c · spherical_harmonics_vjp by the vectors and g."""
    to_v, to_g = vectors.new_empty(vectors.shape), g.new_empty(g.shape)
    tensors = to_v, to_g, vectors, g, c
    _launch_harmonics(harmonics.spherical_harmonics_vjp_grad, tensors, g, degrees, normalization, normalize)
    return to_v, to_g


def _launch_harmonics(
    kernel: Any, tensors: tuple[Tensor, ...], like: Tensor, degrees: Sequence[int], normalization: str, normalize: bool
) -> None:
    rows, per_program = tensors[0].numel() // tensors[0].shape[-1], 128
    launch(
        kernel, triton.cdiv(rows, per_program), *_rows(*tensors), rows,
        HARMONICS=harmonics_table(tuple(degrees), normalization), NORMALIZED=normalize, WIDTH=like.shape[-1],
        ROWS=per_program, num_warps=4,
    )  # fmt: skip


# --- torch's cache of compiled graphs ---


def _tell_cache() -> None:
    """Name the kernels that a compiled graph depends on: torch looks for them in the operators' own source.

    Without it a graph compiled for a former version of a kernel would be taken for today's.
    """
    try:
        from torch._library.triton import triton_ops_to_kernels
    except ImportError:
        return
    kernels = {
        "conv": [conv.sum_over_edges, conv.gradients_of_edges, layout.to_channel_last],
        "segment_sum": [segment_sum.segment_sum],
        "gate": [gate.gate, gate.gate_vjp, gate.gate_vjp_grad],
        "spherical_harmonics": [
            harmonics.spherical_harmonics, harmonics.spherical_harmonics_vjp, harmonics.spherical_harmonics_vjp_grad
        ],
    }  # fmt: skip
    for name, used in kernels.items():
        for suffix in ("", "_tangent", "_gradient", "_gradient_tangent", "_vjp", "_vjp_grad"):
            if f"triton_{name}{suffix}" in globals():
                triton_ops_to_kernels[f"nequip_fast::triton_{name}{suffix}"] = used


if not backend.INTERPRETED:
    _tell_cache()
