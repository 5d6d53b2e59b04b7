"""Graphs: both visiting orders against their definition, and edges that are not there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_fast.errors import InputError
from nequip_fast.ops import Graph, first_of_pair, use_backend


@settings(max_examples=40, deadline=None)
@given(nodes=st.integers(1, 9), edges=st.integers(0, 40), seed=st.integers(0, 2**31))
def test_counting_equals_sorting(nodes, edges, seed):
    """The compiled count and torch's stable sort give the same orders, bit for bit."""
    index = torch.randint(0, nodes, (2, edges), generator=torch.Generator().manual_seed(seed))
    graphs = []
    for backend in ("cpu", "reference"):
        with use_backend(backend):
            graphs.append(Graph.from_edge_index(index, nodes))
    assert all(torch.equal(a, b) for a, b in zip(*graphs, strict=True))
    for node in range(nodes):
        arriving = graphs[0].receiver_order[graphs[0].receiver_ptr[node] : graphs[0].receiver_ptr[node + 1]]
        assert torch.equal(arriving, (index[0] == node).nonzero().flatten())
    assert graphs[0].num_nodes == nodes
    assert graphs[0].num_edges == edges


def test_reversed_exchanges_the_ends():
    """Twice reversed is the graph itself; the sender's order becomes the receiver's."""
    graph = Graph.from_edge_index(torch.tensor([[0, 2, 1], [1, 1, 0]]), 3)
    assert torch.equal(graph.reversed().receiver, graph.sender)
    assert torch.equal(graph.reversed().receiver_ptr, graph.sender_ptr)
    assert all(a is b for a, b in zip(graph.reversed().reversed(), graph, strict=True))


@pytest.mark.parametrize("missing", [-1, 3])
@pytest.mark.parametrize("row", [0, 1])
def test_a_node_that_is_not_there(row, missing):
    """One sentence, and no edge is dropped in silence."""
    index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    index[row, 1] = missing
    with pytest.raises(InputError, match=r"names a node outside 0 … 2"):
        Graph.from_edge_index(index, 3)


def test_wrong_shape_or_type():
    """[E, 2] and int32 are the usual mistakes."""
    with pytest.raises(InputError, match=r"int64 tensor \[2, E\], got torch\.int64 \[5, 2\]"):
        Graph.from_edge_index(torch.zeros(5, 2, dtype=torch.int64), 3)
    with pytest.raises(InputError, match=r"got torch\.int32"):
        Graph.from_edge_index(torch.zeros(2, 5, dtype=torch.int32), 3)


def pairs(receiver, sender, vectors, x):
    """The definition, one edge after the other."""
    first = list(range(len(x)))
    for e in range(len(x)):
        for other in range(e):
            ends = receiver[e] == sender[other] and sender[e] == receiver[other]
            if ends and torch.equal(vectors[e], -vectors[other]) and x[e] == x[other]:
                first[e] = other if first[other] == other else e
                break
    return torch.tensor(first, dtype=torch.int64)


@settings(max_examples=60, deadline=None)
@given(nodes=st.integers(1, 4), edges=st.integers(0, 30), seed=st.integers(0, 2**31), dtype=st.sampled_from([32, 64]))
def test_pairs_of_edges(nodes, edges, seed, dtype):
    """Few nodes, vectors and lengths, so that edges are repeated, join a node to itself, differ in one thing alone."""
    generator = torch.Generator().manual_seed(seed)
    receiver, sender = torch.randint(0, nodes, (2, edges), generator=generator)
    vectors = torch.randint(-1, 2, (edges, 3), generator=generator).to(getattr(torch, f"float{dtype}"))
    vectors[:, 1:] = 0
    x = vectors.norm(dim=1, keepdim=True) + (torch.rand(edges, 1, generator=generator) < 0.2)
    graph = Graph.from_ends(receiver, sender, nodes)
    first = first_of_pair(graph, vectors, x)
    assert torch.equal(first, pairs(receiver, sender, vectors, x))
    assert torch.equal(first[first], first)


def test_pairs_of_a_crystal_and_of_cutoffs_that_differ_by_direction():
    """Lengths that are equal by symmetry alone make no pair."""
    receiver, sender = torch.tensor([[0, 1, 0, 2, 1, 2], [1, 0, 2, 0, 2, 1]])
    vectors = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, 1]])
    graph = Graph.from_ends(receiver, sender, 3)
    assert first_of_pair(graph, vectors, vectors.norm(dim=1)).tolist() == [0, 0, 2, 2, 4, 5]
    assert first_of_pair(graph, vectors, torch.tensor([1.0, 1, 1, 2, 1, 1])).tolist() == [0, 0, 2, 3, 4, 5]
    with use_backend("reference"):
        assert first_of_pair(graph, vectors, vectors.norm(dim=1)) is None


def test_bad_pairs_are_named():
    graph = Graph.from_ends(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    with pytest.raises(RuntimeError, match=r"vectors must be \[2, 3\], and x as many numbers of their dtype"):
        first_of_pair(graph, torch.zeros(2, 2), torch.zeros(2))
    with pytest.raises(RuntimeError, match="as many numbers of their dtype"):
        first_of_pair(graph, torch.zeros(2, 3), torch.zeros(2).double())


def test_opcheck():
    """Schema, fake kernel, symbolic tracing."""
    torch.library.opcheck(torch.ops.nequip_fast.visiting_order, (torch.tensor([2, 0, 2]), 4))
    graph = Graph.from_ends(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    arguments = (
        graph.receiver,
        graph.sender,
        graph.receiver_ptr,
        graph.receiver_order,
        torch.zeros(2, 3),
        torch.zeros(2),
    )
    torch.library.opcheck(torch.ops.nequip_fast.first_of_pair, arguments)
