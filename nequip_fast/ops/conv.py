"""``conv``: gather the senders' features, 'uvu' product with the edge attributes, sum over the receivers.

    out[i, u, m3] = Σ_{edges j → i} Σ_paths c · w[e, u] Σ_{m1, m2} C(m1, m2, m3) x[j, u, m1] y[e, m2]

is trilinear in (x, y, w). With a cotangent g of out, F = Σ g·out is quadrilinear, and each derivative of
any order is again one of its partial contractions:

* ∂F/∂g is ``conv`` itself, ∂F/∂x is ``conv`` of g with transposed paths on the reversed graph;
* (∂F/∂y, ∂F/∂w) is ``conv_edge_grad``, one pass over the edges.

So two kernels serve every order, and no tensor of E rows as wide as out or x is ever formed.
"""

from __future__ import annotations

from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend
from nequip_fast.ops.graph import Graph
from nequip_fast.ops.paths import ConvProblem, transposed

MAX_L = 4  # the compiled kernels hold the paths up to here


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
    if backend.choose("conv", x, _beyond_max_l(problem)) == "reference":
        return conv_reference(x, y, w, graph, problem)
    return _compiled(x, y, w, graph, problem)


def conv_reference(x: Tensor, y: Tensor, w: Tensor, graph: Graph, problem: ConvProblem) -> Tensor:
    """The definition in plain torch; forms the messages [E, dim_out]."""
    messages = x.new_zeros(graph.num_edges, problem.dim_out)
    senders = x[graph.sender]
    for l1, l2, l3, mul, at_x, at_y, at_w, at_out, coefficient in problem.paths:
        n1, n2, n3 = 2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1
        cg = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).to(x) * coefficient
        x_path = senders[:, at_x : at_x + mul * n1].unflatten(1, (mul, n1))
        y_path = y[:, at_y : at_y + n2]
        w_path = w[:, at_w : at_w + mul]
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


def _beyond_max_l(problem: ConvProblem) -> str | None:
    return f"its kernels stop at l = {MAX_L}, this problem has l = {problem.l_max}" if problem.l_max > MAX_L else None


# --- the compiled operators: csrc/register.cpp has the schemas, csrc/cpu/conv the kernels ---


def _compiled(x: Tensor, y: Tensor, w: Tensor, graph: Graph, problem: ConvProblem) -> Tensor:
    return torch.ops.nequip_fast.conv(x, y, w, *graph, problem.integers, problem.coefficients, problem.dim_out)


def _sum(terms: list[Tensor]) -> Tensor | None:
    return None if not terms else terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, integers, coefficients, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.paths = tuple(integers), tuple(coefficients)


def _conv_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, y, w, *indices = ctx.saved_tensors
    graph, ops = Graph(*indices), torch.ops.nequip_fast
    need_x, need_y, need_w = ctx.needs_input_grad[:3]
    dx = ops.conv(g, y, w, *graph.reversed(), *transposed(*ctx.paths), x.shape[1]) if need_x else None
    dy, dw = ops.conv_edge_grad(x, g, y, w, *graph, *ctx.paths) if need_y or need_w else (None, None)
    return dx, dy, dw, *(None,) * 9


def _edge_grad_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, integers, coefficients = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.paths = tuple(integers), tuple(coefficients)


def _edge_grad_backward(ctx: Any, cy: Tensor | None, cw: Tensor | None) -> tuple[Tensor | None, ...]:
    """Cotangents (cy, cw): S = F(x, cy, w; g) + F(x, y, cw; g), differentiated once more."""
    x, g, y, w, *indices = ctx.saved_tensors
    graph, ops = Graph(*indices), torch.ops.nequip_fast
    need_x, need_g, need_y, need_w = ctx.needs_input_grad[:4]
    pairs = ([(cy, w)] if cy is not None else []) + ([(y, cw)] if cw is not None else [])
    back = transposed(*ctx.paths)
    dx = [ops.conv(g, a, b, *graph.reversed(), *back, x.shape[1]) for a, b in pairs if need_x]
    dg = [ops.conv(x, a, b, *graph, *ctx.paths, g.shape[1]) for a, b in pairs if need_g]
    dy, dw = None, None
    if pairs and (need_y or need_w):
        # one call gives ∂S/∂y (from cw) and ∂S/∂w (from cy); a missing cotangent voids its half
        dy, dw = ops.conv_edge_grad(x, g, y if cy is None else cy, w if cw is None else cw, *graph, *ctx.paths)
        dy, dw = (None if cw is None else dy), (None if cy is None else dw)
    return _sum(dx), _sum(dg), dy, dw, *(None,) * 8


if backend.compiled("conv"):

    @torch.library.register_fake("nequip_fast::conv")
    def _(x, y, w, receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order, paths, coefficients, dim):
        return x.new_empty(receiver_ptr.shape[0] - 1, dim)

    @torch.library.register_fake("nequip_fast::conv_edge_grad")
    def _(x, g, y, w, receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order, paths, coefficients):
        return y.new_empty(y.shape), w.new_empty(w.shape)

    torch.library.register_autograd("nequip_fast::conv", _conv_backward, setup_context=_conv_setup)
    torch.library.register_autograd("nequip_fast::conv_edge_grad", _edge_grad_backward, setup_context=_edge_grad_setup)
