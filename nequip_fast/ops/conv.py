"""``conv``: gather the senders' features, 'uvu' product with the edge attributes, sum over the receivers.

    out[i, u, m3] = Σ_{edges j → i} Σ_paths c · w[e, u] Σ_{m1, m2} C(m1, m2, m3) x[j, u, m1] y[e, m2]

is trilinear in (x, y, w): :mod:`nequip_fast.ops.trilinear` has the derivatives. No tensor of E rows as wide as out or x
is formed.
"""

from __future__ import annotations

from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend
from nequip_fast.ops.graph import Graph
from nequip_fast.ops.paths import ConvProblem
from nequip_fast.ops.registration import by_backend
from nequip_fast.ops.trilinear import TrilinearOperator


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
    chosen = backend.choose("conv", x, problem.text)
    if chosen == "reference":
        return conv_reference(x, y, w, graph, problem)
    return operators[chosen](x, y, w, *graph, problem.text)


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
    check_inputs({"x": x, "y": y, "w": w}, graph, problem)


def check_inputs(tensors: dict[str, Tensor], graph: Graph, problem: ConvProblem) -> None:
    """x and others of y and w, by name.

    Raises:
        InputError: one does not fit the graph, the problem or x.
    """
    nodes, edges, x = graph.num_nodes, graph.num_edges, tensors["x"]
    shapes = {"x": (nodes, problem.dim_x), "y": (edges, problem.dim_y), "w": (edges, problem.dim_w)}
    for name, tensor in tensors.items():
        shape = shapes[name]
        if tuple(tensor.shape) != shape:
            raise InputError(f"conv: {name} must be {list(shape)} for this graph and problem, got {list(tensor.shape)}")
        if tensor.dtype != x.dtype or tensor.device != x.device:
            raise InputError(f"conv: {name} is {tensor.dtype} on {tensor.device}, but x {x.dtype} on {x.device}")
    if graph.receiver.device != x.device:
        raise InputError(f"conv: the graph is on {graph.receiver.device}, but x on {x.device}")


# --- the operators: csrc/register.cpp has the schemas, csrc/cpu/conv and nequip_fast/kernels/conv.py the kernels ---


def _fake(x: Tensor, y: Tensor, w: Tensor, *edges: Any) -> Tensor:
    *_, receiver_ptr, _, _, _, text = edges
    return x.new_empty(receiver_ptr.shape[0] - 1, ConvProblem.from_text(text).dim_out)


operators = by_backend(
    lambda prefix: TrilinearOperator(f"{prefix}conv", ConvProblem, _fake, constant_tensors=len(Graph._fields))
)
