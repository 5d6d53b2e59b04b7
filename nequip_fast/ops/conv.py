"""``conv``: gather the senders' features, 'uvu' product with the edge attributes, sum over the receivers.

    out[i, u, m3] = Σ_{edges j → i} Σ_paths c · w[e, u] Σ_{m1, m2} C(m1, m2, m3) x[j, u, m1] y[e, m2]

is trilinear in p = (x, y, w). With a cotangent g of out, F(p; g) = Σ g·out; the compiled operators are

* ``conv(p)`` and ``conv_tangent(p, d)``, its derivative along d = (dx, dy, dw);
* ``conv_gradient(p; g)`` = ∂F/∂p and ``conv_gradient_tangent(p; g, d)``, its derivative along d.

With the symmetric form T(a, b, c; g), the sum of F with x, y and w taken from a, b, c in all six orders, these are
T(p, p, p)/6, T(p, p, d)/2, T(·, p, p)/2 and T(·, p, d), so each derivative of any order is one of them again: one
operator in the backward pass of each, which reads the weights once. No tensor of E rows as wide as out or x is formed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend
from nequip_fast.ops.graph import Graph
from nequip_fast.ops.paths import ConvProblem
from nequip_fast.ops.registration import compiled_operator, one_by_one


def conv(x: Tensor, y: Tensor, w: Tensor, graph: Graph, problem: ConvProblem) -> Tensor:
    """Equivariant convolution over a graph, differentiable to any order.

    Args:
        x: node features [N, dim_x], e3nn's ``mul_ir`` layout.
        y: edge attributes [E, dim_y], as a rule spherical harmonics of the edge vectors.
        w: edge weights [E, dim_w], from the radial network.
        graph: which node each edge leaves and reaches.
        problem: the paths.

    Returns:
        [N, dim_out], same dtype and device as x; zero for nodes that no edge reaches.

    Raises:
        InputError: shapes, dtypes or devices do not fit, or the backend chosen by name cannot serve.
    """
    _check(x, y, w, graph, problem)
    if backend.choose("conv", x) == "reference":
        return conv_reference(x, y, w, graph, problem)
    return _conv(x, y, w, *graph, problem.text)


def conv_reference(x: Tensor, y: Tensor, w: Tensor, graph: Graph, problem: ConvProblem) -> Tensor:
    """The definition in plain torch; forms the messages [E, dim_out]."""
    messages = x.new_zeros(graph.num_edges, problem.dim_out)
    senders = x[graph.sender]
    for l1, l2, l3, mul, at_x, at_y, at_w, w_stride, at_out, coefficient in problem.paths:
        n1, n2, n3 = 2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1
        cg = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).to(x) * coefficient
        x_path = senders[:, at_x : at_x + mul * n1].unflatten(1, (mul, n1))
        y_path = y[:, at_y : at_y + n2]
        w_path = w[:, at_w::w_stride][:, :mul] if w_stride else w.new_ones(1, 1).expand(len(w), mul)
        message = torch.einsum("eu,eui,ej,ijk->euk", w_path, x_path, y_path, cg)
        columns = torch.arange(at_out, at_out + mul * n3, device=x.device)
        messages.index_add_(1, columns, message.flatten(1))
    return x.new_zeros(graph.num_nodes, problem.dim_out).index_add(0, graph.receiver, messages)


def _check(x: Tensor, y: Tensor, w: Tensor, graph: Graph, problem: ConvProblem) -> None:
    expected = (graph.num_nodes, problem.dim_x), (graph.num_edges, problem.dim_y), (graph.num_edges, problem.dim_w)
    for name, tensor, shape in zip(("x", "y", "w"), (x, y, w), expected, strict=True):
        if tuple(tensor.shape) != shape:
            raise InputError(f"conv: {name} must be {list(shape)} for this graph and problem, got {list(tensor.shape)}")
        if tensor.dtype != x.dtype or tensor.device != x.device:
            raise InputError(f"conv: {name} is {tensor.dtype} on {tensor.device}, but x {x.dtype} on {x.device}")
    if graph.receiver.device != x.device:
        raise InputError(f"conv: the graph is on {graph.receiver.device}, but x on {x.device}")


# --- the compiled operators: csrc/register.cpp has the schemas, csrc/cpu/conv the kernels ---

Point = Sequence[Tensor | None]  # x, y, w; of a tangent or a gradient, None is zero
_NOTHING: Point = (None, None, None)


def _nothing(p: Point) -> bool:
    return all(value is None for value in p)


def _tangent(p: Point, d: Point, edges: tuple[Any, ...]) -> Tensor | None:
    """T(p, p, d)/2."""
    return None if _nothing(d) else _conv_tangent(*p, *d, *edges)


def _gradient(p: Point, g: Tensor, edges: tuple[Any, ...], want: Sequence[bool]) -> Point:
    """T(·, p, p; g)/2, where wanted."""
    if not any(want):
        return _NOTHING
    return _wanted(_conv_gradient(*p, g, *edges, *want), want)


def _gradient_tangent(p: Point, g: Tensor, d: Point, edges: tuple[Any, ...], want: Sequence[bool]) -> Point:
    """T(·, p, d; g), where wanted."""
    if not any(want) or _nothing(d):
        return _NOTHING
    return _wanted(_conv_gradient_tangent(*p, g, *d, *edges, *want), want)


@cache
def _weighted(text: str) -> str:
    """The problem without the paths that have no weights."""
    problem = ConvProblem.from_text(text)
    paths = [path for path in problem.paths if path.w_stride]
    return ConvProblem(paths, problem.dim_x, problem.dim_y, problem.dim_w, problem.dim_out).text


def _wanted(values: Point, want: Sequence[bool]) -> Point:
    return tuple(value if wanted else None for value, wanted in zip(values, want, strict=True))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep all inputs: tensors, then the text of the paths, then what was wanted."""
    ctx.set_materialize_grads(False)
    tensors = [value for value in inputs if value is None or isinstance(value, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.text, *ctx.want = inputs[len(tensors) :]
    ctx.rest = (None,) * (len(ctx.want) + 7)  # no gradient for the graph, the text and what was wanted


def _saved(ctx: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The operands of the call, and its edges: the graph and the text of the paths."""
    return ctx.saved_tensors[:-6], (*ctx.saved_tensors[-6:], ctx.text)


def _conv_backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
    p, edges = _saved(ctx)
    return *(_NOTHING if g is None else _gradient(p, g, edges, ctx.needs_input_grad[:3])), *ctx.rest


def _tangent_backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
    (*p, dx, dy, dw), edges = _saved(ctx)
    if g is None:
        return *_NOTHING, *_NOTHING, *ctx.rest
    to_p = _gradient_tangent(p, g, (dx, dy, dw), edges, ctx.needs_input_grad[:3])
    return *to_p, *_gradient(p, g, edges, ctx.needs_input_grad[3:6]), *ctx.rest


def _gradient_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    (*p, g), edges = _saved(ctx)
    c = _wanted(cotangents, ctx.want)
    to_p = _gradient_tangent(p, g, c, edges, ctx.needs_input_grad[:3])
    return *to_p, _tangent(p, c, edges) if ctx.needs_input_grad[3] else None, *ctx.rest


def _gradient_tangent_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    (x, y, w, g, *d), edges = _saved(ctx)
    c = _wanted(cotangents, ctx.want)
    if _nothing(c):
        return *_NOTHING, None, *_NOTHING, *ctx.rest
    p, want = (x, y, w), ctx.needs_input_grad
    full = tuple(torch.zeros_like(at) if value is None else value for value, at in zip(c, p, strict=True))
    linear_in_w = *edges[:-1], _weighted(ctx.text)  # paths without weights have no third derivative
    to_p = _gradient_tangent(full, g, d, linear_in_w, want[:3])
    to_d = _gradient_tangent(p, g, c, edges, want[4:7])
    to_g = None
    if want[3]:  # T(p, c, d), term by term
        terms = [
            _conv(a[0], b[1], third[2], *(edges if third is p else linear_in_w))
            for a, b, third in permutations((p, c, d))
            if a[0] is not None and b[1] is not None and third[2] is not None
        ]
        to_g = sum(terms[1:], terms[0]) if terms else None
    return *to_p, to_g, *to_d, *ctx.rest


def _conv_fake(x: Tensor, *rest: Any) -> Tensor:
    *_, receiver_ptr, _, _, _, text = rest
    return x.new_empty(receiver_ptr.shape[0] - 1, ConvProblem.from_text(text).dim_out)


def _gradient_fake(x: Tensor, y: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    want = rest[-3:]
    return tuple(t.new_empty(t.shape if wanted else (0, t.shape[1])) for t, wanted in zip((x, y, w), want, strict=True))


def _operator(name: str, fake: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """One of the four, mapped by a call for each entry: there is no kernel for many graphs at once."""
    operator = compiled_operator(name, fake, _setup, backward, lambda *mapped: one_by_one(operator, *mapped))
    return operator


_conv = _operator("conv", _conv_fake, _conv_backward)
_conv_tangent = _operator("conv_tangent", _conv_fake, _tangent_backward)
_conv_gradient = _operator("conv_gradient", _gradient_fake, _gradient_backward)
_conv_gradient_tangent = _operator("conv_gradient_tangent", _gradient_fake, _gradient_tangent_backward)
