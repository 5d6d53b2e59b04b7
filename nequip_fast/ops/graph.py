"""The graph every edge operator takes: edges, and the order in which each end visits them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.ops import backend


class Graph(NamedTuple):
    """Directed edges j → i and both ways to walk them; all tensors int64 on one device.

    ``receiver_order[receiver_ptr[i]:receiver_ptr[i + 1]]`` are the edges that arrive at node i, and the
    same with ``sender`` for those that leave node j. Edges may be in any order, repeated, or join a node
    to itself; nodes may have none. Sorted edges make the walk contiguous in memory, hence faster.
    """

    receiver: Tensor  # [E]
    sender: Tensor  # [E]
    receiver_ptr: Tensor  # [N + 1]
    receiver_order: Tensor  # [E]
    sender_ptr: Tensor  # [N + 1]
    sender_order: Tensor  # [E]

    @property
    def num_nodes(self) -> int:
        """N, the number of nodes, those without edges included."""
        return self.receiver_ptr.shape[0] - 1

    @property
    def num_edges(self) -> int:
        """E, the number of directed edges."""
        return self.receiver.shape[0]

    @classmethod
    def from_edge_index(cls, edge_index: Tensor, num_nodes: int) -> Graph:
        """Graph of ``edge_index`` [2, E] (row 0 the receivers, row 1 the senders, as in nequip).

        Reads no values, so that it can be traced; the operators on the CPU check that every index is in range.

        Raises:
            InputError: the index is not [2, E] int64.
        """
        if edge_index.dim() != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.int64:
            raise InputError(
                f"edge_index must be an int64 tensor [2, E], got {edge_index.dtype} {list(edge_index.shape)}"
            )
        receiver, sender = edge_index.unbind(0)
        return cls.from_ends(receiver, sender, num_nodes)

    @classmethod
    def from_ends(cls, receiver: Tensor, sender: Tensor, num_nodes: int) -> Graph:
        """Graph of the edges ``sender`` [E] → ``receiver`` [E], both int64; otherwise as :meth:`from_edge_index`."""
        return cls(
            receiver.contiguous(), sender.contiguous(), *_visiting_order(receiver, num_nodes),
            *_visiting_order(sender, num_nodes),
        )  # fmt: skip

    def reversed(self) -> Graph:
        """The same edges pointing the other way (no copy)."""
        return Graph(
            self.sender, self.receiver, self.sender_ptr, self.sender_order, self.receiver_ptr, self.receiver_order
        )


def first_of_pair(graph: Graph, vectors: Tensor, x: Tensor) -> Tensor | None:
    """Edges whose radial functions are those of an earlier edge, their reverse: for ``first`` of :func:`~.mlp.mlp`.

    What depends on the length alone is one function of the atoms' positions for both edges of a pair, so that it may be
    computed, and differentiated, for one of them, unless edges are differentiated by one by one. Two edges are a pair
    if they exchange sender and receiver, if their vectors are each other's negative and ``x`` is the same, to the last
    bit; cutoffs that differ by direction make two edges of it.

    Args:
        vectors: [E, 3] from the receiver to the sender, or all the other way.
        x: [E] or [E, 1] of the same dtype: lengths over cutoffs.

    Returns:
        [E] int64, the number of the edge itself or of the first of its pair; None where ``mlp`` has no kernel,
        which then would gain nothing, and where the vectors are leaves that ask for gradients: these are for edges one
        by one. Of other vectors it is for the caller to know.
    """
    if not backend.can("mlp", "cpu", x) or (vectors.requires_grad and vectors.is_leaf):
        return None
    ends = graph.receiver, graph.sender, graph.receiver_ptr, graph.receiver_order
    return torch.ops.nequip_fast.first_of_pair(*ends, vectors.detach(), x.detach().reshape(-1))


def _visiting_order(node: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """(ptr [N + 1], order [E]): the edges of each node, in ascending edge number."""
    if node.device.type == "cpu" and backend.compiled("visiting_order") and backend.get_backend() != "reference":
        try:
            return torch.ops.nequip_fast.visiting_order(node, num_nodes)
        except RuntimeError:
            raise InputError(f"edge_index names a node outside 0 … {num_nodes - 1}; it has one row per end") from None
    order = torch.argsort(node, stable=True)
    ptr = torch.searchsorted(node[order], torch.arange(num_nodes + 1, device=node.device))
    return ptr, order


if backend.compiled("visiting_order"):

    @torch.library.register_fake("nequip_fast::visiting_order")
    def _visiting_order_fake(node, num_nodes):
        return node.new_empty(num_nodes + 1), node.new_empty(node.shape)


if backend.compiled("first_of_pair"):

    @torch.library.register_fake("nequip_fast::first_of_pair")
    def _first_of_pair_fake(receiver, sender, ptr, order, vectors, x):
        return receiver.new_empty(receiver.shape)
