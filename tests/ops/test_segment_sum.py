"""segment_sum: values, gradients, edge cases, torch's requirements."""

import pytest
import torch

from nequip_fast.errors import InputError
from nequip_fast.ops import segment_sum, use_backend
from nequip_fast.ops.segment_sum import segment_sum_reference
from tests.helpers import KERNELS, operator, random_graph


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("nodes", "edges", "width"), [(5, 40, 7), (1, 1, 1), (4, 0, 3), (0, 0, 2), (3, 6, 0)])
def test_equals_definition(nodes, edges, width, dtype):
    """The compiled sum is the definition's, in the same order of addition."""
    graph, m = random_graph(nodes, edges), torch.randn(edges, width, dtype=dtype)
    with use_backend(KERNELS):
        out = segment_sum(m, graph)
    torch.testing.assert_close(out, segment_sum_reference(m, graph))


def test_derivatives_and_opcheck():
    """First and second derivatives by finite differences, and torch's own checks."""
    graph = random_graph(4, 9)
    m = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    with use_backend(KERNELS):
        assert torch.autograd.gradcheck(lambda v: segment_sum(v, graph), m)
        assert torch.autograd.gradgradcheck(lambda v: segment_sum(v, graph).sin(), m)
    arguments = m, graph.receiver_ptr, graph.receiver_order, graph.receiver
    torch.library.opcheck(operator("segment_sum"), arguments)


def test_torch_func():
    """Mapped and differentiated as the definition is."""
    graph, m = random_graph(4, 12), torch.randn(3, 12, 5)

    def mapped(function):
        return torch.vmap(torch.func.grad(lambda rows: function(rows, graph).sin().sum()))(m)

    with use_backend(KERNELS):
        torch.testing.assert_close(mapped(segment_sum), mapped(segment_sum_reference))


def test_bad_input_is_named():
    """Wrong number of rows, or another device."""
    graph = random_graph(4, 9)
    with pytest.raises(InputError, match=r"m must be \[9, d\] for this graph, got \[8, 2\]"):
        segment_sum(torch.zeros(8, 2), graph)
    with pytest.raises(InputError, match="the graph is on cpu, but m on meta"):
        segment_sum(torch.zeros(9, 2, device="meta"), graph)


@pytest.mark.skipif(KERNELS != "cpu", reason="nothing is looked at on a GPU")
def test_orders_that_point_outside_are_refused():
    graph = random_graph(4, 9)
    broken = graph._replace(receiver_order=graph.receiver_order + 1)
    with use_backend("cpu"), pytest.raises(RuntimeError, match="receiver_order names something outside"):
        segment_sum(torch.zeros(9, 2), broken)
