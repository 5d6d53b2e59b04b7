"""The CUDA kernels, where there is a GPU or they are emulated; `bash bench/on_gpu.sh` runs this file, also under
compute-sanitizer, and `make simt` what needs no GPU.
"""

import pytest
import torch

from bench.cuda_kernels import SHAPES
from bench.problems import CASES
from nequip_fast.errors import InputError
from nequip_fast.ops import Graph, backend, conv, conv_of_table, segment_sum, use_backend
from nequip_fast.ops.segment_sum import segment_sum_reference
from tests.helpers import inputs, random_graph, relative_error

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_kernels = pytest.mark.skipif(not (torch.cuda.is_available() or backend.EMULATED), reason="no CUDA device")
DEVICE = "cpu" if backend.EMULATED else "cuda"
BOUNDS = {torch.float64: (1e-12, 1e-12, 1e-10), torch.float32: (1e-6, 1e-6, 1e-5)}  # value, first, second derivatives


def derivatives(function, tensors, orders):
    """The value, its derivatives along a fixed cotangent, and those of half the squares of these."""
    value = function(*tensors)
    cotangent = torch.linspace(-1, 2, value.numel(), device=value.device).view(value.shape).to(value)
    first = torch.autograd.grad(value, tensors, cotangent, create_graph=True)
    if orders == 1:
        return [value], first
    return [value], first, torch.autograd.grad(sum(g.square().sum() for g in first) / 2, tensors)


def compare(function, tensors, dtype, orders):
    """The CUDA kernels against the definition in float64 of the same numbers."""
    tensors = [t.detach().to(DEVICE, dtype).requires_grad_() for t in tensors]
    with use_backend("reference"):
        exact = derivatives(function, [t.detach().double().requires_grad_() for t in tensors], orders)
    with use_backend("cuda"):
        found = derivatives(function, tensors, orders)
    for ours, theirs, bound in zip(found, exact, BOUNDS[dtype], strict=False):
        assert all(relative_error(a.cpu(), b.cpu()) < bound for a, b in zip(ours, theirs, strict=True))


@needs_kernels
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_models(shape, dtype):
    """They have kernels, which are right at the full numbers of channels."""
    problem, graph = CASES[shape].problem(), Graph(*(t.to(DEVICE) for t in random_graph(3, 5)))
    assert backend.why_not("conv", "cuda", DEVICE, dtype, problem.text) is None
    compare(lambda *t: conv(*t, graph, problem), inputs(problem, random_graph(3, 5)), dtype, orders=2)


@needs_kernels
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("shape", ["conv-M", "conv-L", "conv-l3i5"])
def test_shapes_of_models_with_tables(shape, dtype):
    problem, graph = CASES[shape].problem(), Graph(*(t.to(DEVICE) for t in random_graph(3, 5)))
    x, y, _ = inputs(problem, random_graph(3, 5))
    table, first = torch.randn(13, problem.dim_w, dtype=dtype).to(DEVICE), torch.arange(5, device=DEVICE)

    def function(x, y, coefficients):
        return conv_of_table(x, y, coefficients, table.to(x), first, graph, problem)

    compare(function, [x, y, torch.randn(5, 6, dtype=torch.float64)], dtype, orders=1)


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


@pytest.mark.skipif(backend.EMULATED, reason="the CUDA kernels are emulated on the CPU")
def test_cuda_asked_for_by_name_without_a_gpu():
    """CPU tensors are not moved in silence."""
    graph = random_graph(3, 5)
    expected = "the inputs are on cpu" if backend.NOT_LOADED is None else "not built"
    with use_backend("cuda"), pytest.raises(InputError, match=expected):
        segment_sum(torch.ones(5, 2), graph)
