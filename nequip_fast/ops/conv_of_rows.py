"""``conv`` whose weights are formed in its kernels, so that no tensor [E, W] reaches memory.

    w[e] = Σ_k h[e, k] matrix[first[e] + k]

is the last layer of a radial network (h [E, H] its last hidden activations, ``first`` 0) or a table of weights
(``first`` the row of the knot below, h the coefficients of the few rows that are interpolated). Where no kernel does
this, on the CPU, w is formed and given to :func:`~nequip_fast.ops.conv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nequip_fast.errors import InputError, nearest
from nequip_fast.ops import backend
from nequip_fast.ops.conv import check_inputs, conv, operators
from nequip_fast.ops.graph import Graph
from nequip_fast.ops.paths import ConvProblem
from nequip_fast.ops.registration import compiled_operator, goes_on_to, one_by_one
from nequip_fast.ops.trilinear import TrilinearOperator, gradient_fake

PRECISIONS = ("ieee", "tf32x3", "tf32")


def conv_of_hidden(
    x: Tensor, y: Tensor, h: Tensor, matrix: Tensor, graph: Graph, problem: ConvProblem, precision: str = "ieee"
) -> Tensor:
    """:func:`~nequip_fast.ops.conv` with w = h @ matrix; differentiable to any order.

    Args:
        x: node features [N, dim_x]; y: edge attributes [E, dim_y].
        h: last hidden activations of the radial network [E, H].
        matrix: its last layer [H, dim_w].
        graph: which node each edge leaves and reaches.
        problem: the paths.
        precision: of the product on a GPU: "ieee", or on tensor cores "tf32x3" (as accurate) or "tf32" (1e-3).

    Returns:
        [N, dim_out].

    Raises:
        InputError: shapes, dtypes or devices do not fit, or no such precision.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"precision={precision!r}, expected one of {', '.join(PRECISIONS)}{nearest(precision, PRECISIONS)}"
        )
    return _conv(x, y, h, matrix, None, graph, problem, precision)


def conv_of_table(
    x: Tensor, y: Tensor, coefficients: Tensor, table: Tensor, first: Tensor, graph: Graph, problem: ConvProblem
) -> Tensor:
    """:func:`~nequip_fast.ops.conv` with w[e] = Σ_k coefficients[e, k] table[first[e] + k], as differentiable.

    Args:
        x: node features [N, dim_x]; y: edge attributes [E, dim_y].
        coefficients: [E, K], for instance of :func:`hermite_coefficients`, K = 6.
        table: [rows, dim_w].
        first: [E], int64, between 0 and rows − K.
        graph: which node each edge leaves and reaches.
        problem: the paths.

    Returns:
        [N, dim_out].

    Raises:
        InputError: shapes, dtypes or devices do not fit, or a row is not there (on a GPU this is not looked at).
    """
    return _conv(x, y, coefficients, table, first, graph, problem, "ieee")


def conv_of_table_at(
    begin: int, end: int, x: Tensor, y: Tensor, coefficients: Tensor, table: Tensor, first: Tensor, graph: Graph,
    problem: ConvProblem,
) -> Tensor:  # fmt: skip
    """Rows ``begin`` … ``end − 1`` of :func:`conv_of_table`, not differentiable."""
    operator = _operator(x, coefficients, first, problem)
    if operator is None:
        return conv_of_table(x, y, coefficients, table, first, graph, problem)[begin:end]
    some = graph._replace(receiver_ptr=graph.receiver_ptr[begin : end + 1])
    return operator(x, y, coefficients, table, first, *some, *_constants(operator, problem, "ieee"))


def conv_of_table_gradient(
    x: Tensor, y: Tensor, coefficients: Tensor, table: Tensor, first: Tensor, g: Tensor, graph: Graph,
    problem: ConvProblem, want_x: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:  # fmt: skip
    """The gradients of (g · :func:`conv_of_table`) by x, y and coefficients, for who walks back without autograd.

    Args:
        x, y, coefficients, table, first, graph, problem: those of :func:`conv_of_table`.
        g: [N, dim_out].
        want_x: whether that by x is.

    Returns:
        ([N, dim_x] or None, [E, dim_y], [E, K]), not differentiable.
    """
    x, y, h = x.detach(), y.detach(), coefficients.detach()
    operator = _operator(x, h, first, problem)
    if operator is not None:
        rest = *graph, *_constants(operator, problem, "ieee")
        to_x, to_y, to_h = operator.gradient(x, y, h, table, first, g, *rest, want_x, True, True)
        return to_x if want_x else None, to_y, to_h
    wanted = [t.requires_grad_() for t in ([y, h, x] if want_x else [y, h])]
    with torch.enable_grad():
        out = conv_of_table(x, y, h, table, first, graph, problem)
    found = torch.autograd.grad(out, wanted, g)
    return found[2] if want_x else None, found[0], found[1]


def hermite_coefficients(knots: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Quintic Hermite interpolation as :func:`conv_of_table` takes it.

    Args:
        knots: [K], rising.
        x: [E], between the first and the last.

    Returns:
        (first [E], coefficients [E, 6]) for a table [3 K, …] with the value, first and second derivative at each knot
        in turn. Coefficients are differentiable.
    """
    below = (torch.searchsorted(knots, x.detach(), right=True) - 1).clamp(0, len(knots) - 2)
    width = knots[below + 1] - knots[below]
    t = (x - knots[below]) / width
    s = 1 - t
    rising = t**3 * (10 - 15 * t + 6 * t**2)
    columns = [
        1 - rising, width * t * s**3 * (1 + 3 * t), width**2 / 2 * t**2 * s**3,
        rising, -width * s * t**3 * (1 + 3 * s), width**2 / 2 * s**2 * t**3,
    ]  # fmt: skip
    return 3 * below, torch.stack(columns, 1)


def _conv(
    x: Tensor, y: Tensor, h: Tensor, matrix: Tensor, first: Tensor | None, graph: Graph, problem: ConvProblem,
    precision: str,
) -> Tensor:  # fmt: skip
    check_inputs({"x": x, "y": y}, graph, problem)
    _check(h, matrix, first, graph, problem, x)
    operator = _operator(x, h, first, problem)
    if operator is None:
        return conv(x, y, _formed(h, matrix, first), graph, problem)
    return operator(x, y, h, matrix, first, *graph, *_constants(operator, problem, precision))


def _check(
    h: Tensor, matrix: Tensor, first: Tensor | None, graph: Graph, problem: ConvProblem, x: Tensor
) -> None:  # fmt: skip
    edges = graph.num_edges
    if h.dim() != 2 or h.shape[0] != edges or not h.shape[1]:
        raise InputError(f"conv: h must be [{edges}, 1 or more] for this graph, got {list(h.shape)}")
    rows = h.shape[1] if first is None else matrix.shape[0]
    if matrix.dim() != 2 or tuple(matrix.shape) != (rows, problem.dim_w):
        raise InputError(f"conv: the matrix must be [{rows}, {problem.dim_w}], got {list(matrix.shape)}")
    for name, tensor in (("h", h), ("the matrix", matrix)):
        if tensor.dtype != x.dtype or tensor.device != x.device:
            raise InputError(f"conv: {name} is {tensor.dtype} on {tensor.device}, but x {x.dtype} on {x.device}")
    if first is not None:
        if first.shape != (edges,) or first.dtype != torch.int64 or first.device != x.device:
            raise InputError(
                f"conv: first must be int64 [{edges}] on {x.device}, got {first.dtype} {list(first.shape)} on "
                f"{first.device}"
            )
        last = rows - h.shape[1]
        traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        if not first.is_cuda and not traced and edges and not 0 <= int(first.min()) <= int(first.max()) <= last:
            raise InputError(f"conv: first must lie between 0 and {last}, got {int(first.min())} … {int(first.max())}")


def _formed(h: Tensor, matrix: Tensor, first: Tensor | None) -> Tensor:
    """w."""
    if first is None:
        return h @ matrix
    return sum((h[:, k, None] * matrix[first + k] for k in range(h.shape[1])), h.new_zeros(1, 1))


def _gradient_of_rows(to_w: Tensor, matrix: Tensor, first: Tensor | None, count: int) -> Tensor:
    """That of h [E, count]."""
    if first is None:
        return to_w @ matrix.T
    return torch.stack([(to_w * matrix[first + k]).sum(1) for k in range(count)], 1)


def _gradient_of_matrix(to_w: Tensor, h: Tensor, matrix: Tensor, first: Tensor | None) -> Tensor:
    if first is None:
        return h.T @ to_w
    result = torch.zeros_like(matrix)
    for k in range(h.shape[1]):
        result = result.index_add(0, first + k, h[:, k, None] * to_w)
    return result


# --- the operators: (x, y, h, matrix, first, *graph, text), and of Triton the precision ---

_TABLE_ROWS = 6  # coefficients of an edge that the operator in CUDA takes


class _Operator:
    """``nequip_fast::name`` and ``name_gradient``, registered; an instance is called as the first.

    Args:
        name: of the operator.
        formed: the same whose weights are given, for derivatives that need them.

    Attributes:
        gradient: by x, y and h; of the same arguments, with g before the graph, and which are wanted at the end.
    """

    def __init__(self, name: str, formed: TrilinearOperator) -> None:
        def call_each(*mapped: Any) -> Any:
            return one_by_one(self._product, *mapped)

        def call_each_gradient(*mapped: Any) -> Any:
            return one_by_one(self.gradient, *mapped)

        self._formed = formed
        self._product = compiled_operator(name, _fake, _setup, self._backward, call_each)
        self.gradient = compiled_operator(
            f"{name}_gradient", gradient_fake, _setup, self._gradient_backward, call_each_gradient
        )

    def __call__(self, *arguments: Any) -> Tensor:
        """The convolution."""
        return self._product(*arguments)

    def _backward(self, ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, h, matrix, first, *graph = ctx.saved_tensors
        rest: tuple[None, ...] = (None,) * (1 + len(graph) + len(ctx.constants))
        want_x, want_y, want_h, want_matrix = ctx.needs_input_grad[:4]
        want_matrix = want_matrix and goes_on_to(ctx, 3)  # a parameter; not when forces are asked for
        if g is None:
            return None, None, None, None, *rest
        if not want_matrix:
            wanted = want_x, want_y, want_h
            found = self.gradient(x, y, h, matrix, first, g, *graph, *ctx.constants, *wanted)
            return *(value if want else None for value, want in zip(found, wanted, strict=True)), None, *rest
        text = ctx.constants[0]  # gradients of all weights are needed: w is formed
        to_x, to_y, to_w = self._formed.product_gradient(
            x, y, _formed(h, matrix, first), g, *graph, text, want_x, want_y, True
        )
        to_h = _gradient_of_rows(to_w, matrix, first, h.shape[1]) if want_h else None
        to_matrix = _gradient_of_matrix(to_w, h, matrix, first)
        return to_x if want_x else None, to_y if want_y else None, to_h, to_matrix, *rest

    def _gradient_backward(self, ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Through the same gradients of a convolution whose weights are formed."""
        x, y, h, matrix, first, g, *graph = ctx.saved_tensors
        text, want = ctx.constants[0], ctx.constants[-3:]

        def gradients(x: Tensor, y: Tensor, h: Tensor, matrix: Tensor, g: Tensor) -> tuple[Tensor, ...]:
            w = _formed(h, matrix, first)
            to_x, to_y, to_w = self._formed.product_gradient(x, y, w, g, *graph, text, *want)
            to_h = _gradient_of_rows(to_w, matrix, first, h.shape[1]) if want[2] else h.new_empty(0, h.shape[1])
            return to_x, to_y, to_h

        filled = tuple(
            t.new_zeros(t.shape if wanted else (0, t.shape[1])) if c is None else c
            for c, t, wanted in zip(cotangents, (x, y, h), want, strict=True)
        )
        to_x, to_y, to_h, to_matrix, to_g = torch.func.vjp(gradients, x, y, h, matrix, g)[1](filled)
        return to_x, to_y, to_h, to_matrix, None, to_g, *(None,) * (len(graph) + len(ctx.constants))


def _fake(x: Tensor, y: Tensor, h: Tensor, matrix: Tensor, first: Tensor | None, *rest: Any) -> Tensor:
    return x.new_empty(rest[2].shape[0] - 1, ConvProblem.from_text(rest[6]).dim_out)


def _setup(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    ctx.set_materialize_grads(False)
    tensors = [value for value in inputs if value is None or isinstance(value, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.constants = inputs[len(tensors) :]


_of_rows = _Operator("triton_conv_of_rows", operators["triton"])
_of_table = _Operator("conv_of_table", operators["cuda"])


def _operator(x: Tensor, h: Tensor, first: Tensor | None, problem: ConvProblem) -> _Operator | None:
    """That forms the weights itself; None where there is none."""
    if first is not None and h.shape[1] == _TABLE_ROWS and backend.can("conv_of_table", "cuda", x, problem.text):
        return _of_table
    return _of_rows if backend.can("conv_of_table", "triton", x) else None


def _constants(operator: _Operator, problem: ConvProblem, precision: str) -> tuple[str, ...]:
    return (problem.text, precision) if operator is _of_rows else (problem.text,)
