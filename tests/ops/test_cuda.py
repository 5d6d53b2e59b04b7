"""The CUDA kernels, where there is a GPU; `bash bench/on_gpu.sh` runs this file, also under compute-sanitizer."""

import pytest
import torch

from nequip_fast.errors import InputError
from nequip_fast.ops import Graph, backend, segment_sum, use_backend
from nequip_fast.ops.segment_sum import segment_sum_reference
from tests.helpers import random_graph

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def on_gpu(graph: Graph) -> Graph:
    return Graph(*(t.cuda() for t in graph))


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("nodes", "edges", "width"), [(5, 40, 7), (700, 9000, 130), (1, 1, 1), (4, 0, 3), (0, 0, 2)])
def test_segment_sum(nodes, edges, width, dtype):
    """Equal to the CPU's definition, twice the same bits, gradients included."""
    graph, m = random_graph(nodes, edges), torch.randn(edges, width, dtype=dtype)
    m_gpu = m.cuda().requires_grad_()
    with use_backend("cuda"):
        out = segment_sum(m_gpu, on_gpu(graph))
        again = segment_sum(m_gpu, on_gpu(graph))
    assert torch.equal(out, again)
    torch.testing.assert_close(out.detach().cpu(), segment_sum_reference(m, graph))
    (gradient,) = torch.autograd.grad(out.sum(), m_gpu)
    assert torch.equal(gradient, torch.ones_like(m_gpu))


@needs_gpu
def test_segment_sum_on_another_stream():
    """The kernel runs on torch's current stream."""
    graph, m = on_gpu(random_graph(100, 5000)), torch.randn(5000, 64, device="cuda")
    expected = segment_sum_reference(m.double(), graph)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), use_backend("cuda"):
        out = segment_sum(m, graph)
    stream.synchronize()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_cuda_asked_for_by_name_without_a_gpu():
    """CPU tensors are not moved in silence."""
    graph = random_graph(3, 5)
    expected = "the inputs are on cpu" if backend.NOT_LOADED is None else "not built"
    with use_backend("cuda"), pytest.raises(InputError, match=expected):
        segment_sum(torch.ones(5, 2), graph)
