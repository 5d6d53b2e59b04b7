"""``segment_sum``: sum the rows of edges over their receivers, in edge order, without atomics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend
from nequip_fast.ops.graph import Graph
from nequip_fast.ops.registration import by_backend, compiled_operator, one_by_one


def segment_sum(m: Tensor, graph: Graph) -> Tensor:
    """``out[i] = Σ_{edges j → i} m[e]``, deterministic, differentiable to any order.

    Args:
        m: one row per edge [E, d].

    Returns:
        [N, d]; zero for nodes that no edge reaches.

    Raises:
        InputError: m has not one row per edge or is on another device, or the backend chosen by name cannot serve.
    """
    if m.dim() != 2 or m.shape[0] != graph.num_edges:
        raise InputError(f"segment_sum: m must be [{graph.num_edges}, d] for this graph, got {list(m.shape)}")
    if graph.receiver.device != m.device:
        raise InputError(f"segment_sum: the graph is on {graph.receiver.device}, but m on {m.device}")
    chosen = backend.choose("segment_sum", m)
    if chosen == "reference":
        return segment_sum_reference(m, graph)
    return _segment_sum[chosen](m, graph.receiver_ptr, graph.receiver_order, graph.receiver)


def segment_sum_reference(m: Tensor, graph: Graph) -> Tensor:
    """The definition in plain torch."""
    return m.new_zeros(graph.num_nodes, m.shape[1]).index_add(0, graph.receiver, m)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[3])


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    (receiver,) = ctx.saved_tensors
    return g[receiver], None, None, None


def _fake(m: Tensor, ptr: Tensor, *_: Tensor) -> Tensor:
    return m.new_empty(ptr.shape[0] - 1, m.shape[1])


def _operator(prefix: str) -> Callable[..., Any]:
    def vmap(*mapped: Any) -> tuple[Any, Any]:
        return one_by_one(operator, *mapped)

    operator = compiled_operator(f"{prefix}segment_sum", _fake, _setup, _backward, vmap)
    return operator


_segment_sum = by_backend(_operator)
