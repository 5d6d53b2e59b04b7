"""What only Triton's kernels have: blocks of several sizes, whose edges, nodes and channels end anywhere in them.

    TRITON_INTERPRET=1 NEQUIP_FAST_TEST_KERNELS=triton python -m pytest tests/kernels

runs them on the CPU; the operators' own tests in tests/ops run in the same way.
"""

import pytest
import torch

from nequip_fast.ops import ConvProblem, Graph, conv, use_backend
from tests.helpers import KERNELS, all_paths, inputs, random_graph, relative_error

pytestmark = pytest.mark.skipif(KERNELS != "triton", reason="NEQUIP_FAST_TEST_KERNELS is not triton")


@pytest.fixture
def tables(monkeypatch):
    """Tables made with other constants."""
    from nequip_fast.kernels import table

    def of(**constants):
        for name, value in constants.items():
            monkeypatch.setattr(table, name, value)
        table.table.cache_clear()

    yield of
    table.table.cache_clear()


@pytest.mark.parametrize(("lanes", "largest_part"), [(1, 150), (2, 150), (8, 150), (8, 1)])
@pytest.mark.parametrize("irreps", ["7x0e+3x1o", "33x0e+16x1o"])
def test_masks_at_every_edge_of_a_block(tables, lanes, largest_part, irreps):
    """Nodes with 0 to 9 edges, in blocks that they fill, exceed or leave nearly empty; one kernel or several."""
    tables(_INTERPRETED=lanes, _LARGEST_PART=largest_part)
    arguments = all_paths(irreps, 1, 1)
    problem = ConvProblem.from_irreps(*arguments)
    receiver = torch.arange(10).repeat_interleave(torch.arange(10))
    shuffled = torch.randperm(len(receiver))
    graph = Graph.from_edge_index(torch.stack([receiver[shuffled], torch.randint(0, 10, (len(receiver),))]), 10)
    tensors = inputs(problem, graph)
    results = []
    for backend in ("triton", "reference"):
        with use_backend(backend):
            value = conv(*tensors, graph, problem)
            results.append([value, *torch.autograd.grad(value.sin().sum(), tensors)])
    for ours, theirs in zip(*results, strict=True):
        assert relative_error(ours, theirs) < 1e-13


@pytest.mark.parametrize("together", [150, 1])
def test_paths_to_one_output_in_several_kernels(tables, together):
    """Each adds to what those before it wrote: first and second derivatives, where gradients of x share outputs."""
    tables(_LARGEST_SHARE=1, _LARGEST_PART=together)
    problem, graph = ConvProblem.from_irreps(*all_paths("5x0e+3x1o", 1, 1)), random_graph(4, 11)
    tensors = inputs(problem, graph)
    results = []
    for backend in ("triton", "reference"):
        with use_backend(backend):
            value = conv(*tensors, graph, problem)
            first = torch.autograd.grad(value.sin().sum(), tensors, create_graph=True)
            second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors)
            results.append([value, *first, *second])
    for ours, theirs in zip(*results, strict=True):
        assert relative_error(ours, theirs) < 1e-13


def test_strided_tensors_of_a_graph():
    """A graph whose tensors are columns of others, as of an edge index [E, 2]."""
    problem = ConvProblem.from_irreps(*all_paths("7x0e+3x1o", 1, 1))
    graph = Graph.from_edge_index(torch.randint(0, 4, (2, 9)), 4)
    strided = Graph(*(torch.stack([t, -t - 1], 1)[:, 0] for t in graph))
    tensors = inputs(problem, graph)
    with use_backend("triton"):
        results = [torch.autograd.grad(conv(*tensors, g, problem).square().sum(), tensors) for g in (graph, strided)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
