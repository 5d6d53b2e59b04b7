"""CUDA's and Triton's kernels on a GPU: the definitions' values and derivatives, twice the same bits."""

import pytest
import torch

import nequip_fast
from nequip_fast.ops import (
    ConvProblem,
    GateProblem,
    GateSegment,
    Graph,
    ProductPath,
    ProductProblem,
    backend,
    conv,
    conv_of_hidden,
    conv_of_table,
    gate,
    radial,
    segment_sum,
    spherical_harmonics,
    tensor_product,
    use_backend,
)
from nequip_fast.ops.product_paths import MODES
from tests.helpers import TRIPLES, all_paths, inputs, random_graph, relative_error

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
BOUNDS = {torch.float64: (1e-12, 1e-10), torch.float32: (1e-6, 1e-5)}


def derivatives(function, tensors):
    """The value, its derivative along a fixed cotangent, and that of half the derivatives' squares."""
    value = function(*tensors)
    cotangent = torch.linspace(-1, 2, value.numel(), device=value.device).view(value.shape).to(value)
    first = torch.autograd.grad(value, tensors, cotangent, create_graph=True)
    scalar = sum(g.square().sum() for g in first) / 2
    if not scalar.requires_grad:  # linear
        return [value], [*first], []
    return [value], [*first], [*torch.autograd.grad(scalar, tensors, allow_unused=True, materialize_grads=True)]


def compare(operator, function, tensors, dtype, problem=""):
    """Each backend that has kernels for it against the definition in float64, and against itself."""
    exact = [t.detach().double().requires_grad_() for t in tensors]
    with use_backend("reference"):
        expected = derivatives(function, exact)
    for name in ("cuda", "triton"):
        if backend.why_not(operator, name, "cuda", dtype, problem) is not None:
            assert name == "cuda"
            continue
        with use_backend(name):
            found, again = (derivatives(function, tensors) for _ in range(2))
        for order, (ours, theirs, once_more) in enumerate(zip(found, expected, again, strict=True)):
            for a, b, c in zip(ours, theirs, once_more, strict=True):
                assert torch.equal(a, c)
                assert relative_error(a.cpu(), b.cpu()) < BOUNDS[dtype][order == 2]


def test_cuda_kernels_are_built():
    """Without them half of this file compares nothing."""
    assert backend.has_cuda_kernels()


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_conv_per_instruction(triple):
    l1, l2, l3 = triple
    problem = ConvProblem.from_irreps(f"11x{l1}e", f"1x{l2}e", f"11x{l3}e", [(0, 0, 0)])
    _compare_conv(problem, random_graph(9, 100), torch.float64)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("irreps", ["32x0e+32x1o", "128x0e+64x1o+32x2e", "70x0e+33x1o+16x2e+7x3o"])
@pytest.mark.parametrize(("nodes", "edges"), [(0, 0), (3, 0), (1, 1), (200, 5000)])
def test_conv_of_many_paths(irreps, nodes, edges, dtype):
    _compare_conv(ConvProblem.from_irreps(*all_paths(irreps, 2, 2)), random_graph(nodes, edges), dtype)


def _compare_conv(problem, graph, dtype):
    tensors = [t.detach().cuda().requires_grad_() for t in inputs(problem, graph, dtype)]
    graph = Graph(*(t.cuda() for t in graph))
    compare("conv", lambda *t: conv(*t, graph, problem), tensors, dtype, problem.text)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("degrees", [[0, 1, 2, 3], [3, 1, 1, 0, 4], [6]], ids=str)
def test_spherical_harmonics(degrees, normalize, dtype):
    v = torch.nn.functional.normalize(torch.randn(1000, 3, dtype=dtype, device="cuda")).requires_grad_()
    compare("spherical_harmonics", lambda v: spherical_harmonics(v, degrees, normalize), [v], dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("activation", ["identity", "silu", "tanh", "sigmoid", "ssp", "softplus", "mish"])
def test_gate(activation, dtype):
    segments = [GateSegment(40, -1, 0, 33, 1, "silu", 1.7), GateSegment(0, 33, 33, 7, 3, activation, 0.8)]
    problem = GateProblem([segments[0], segments[1]._replace(gate=21)], 73)
    x = torch.randn(500, 73, dtype=dtype, device="cuda", requires_grad=True)
    compare("gate", lambda x: gate(x, problem), [x], dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("rows", [(300, 300, 1), (40, 40, 40), (1, 40, 40), (40, 1, 1)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_tensor_product(mode, rows, dtype):
    """Every mode, with channels that fill no block and some that fill more than one; rows shared or not."""
    alike = mode in ("uuw", "uuu", "uvu<v", "u<vw")
    mul1, mul2 = 35, 35 if alike else 5
    mul3 = {"uvu": mul1, "uvv": mul2, "uuu": mul1, "uvuv": mul1 * mul2, "uvu<v": mul1 * (mul1 - 1) // 2}.get(mode, 33)
    path = ProductPath(mode, 2, 1, 2, mul1, mul2, mul3, 0, 0, 0, 0, 1.0)
    size = int(torch.tensor(path.weight_shape).prod())
    problem = ProductProblem([path], 5 * mul1, 3 * mul2, size, 5 * mul3)
    dims = problem.dim_x, problem.dim_y, problem.dim_w
    tensors = [
        torch.randn(n, dim, dtype=dtype, device="cuda").requires_grad_() for n, dim in zip(rows, dims, strict=True)
    ]
    compare("tensor_product", lambda *t: tensor_product(*t, problem), tensors, dtype)


@pytest.mark.parametrize("p", [2.0, 6.0])
def test_radial(p):
    x = torch.linspace(0.02, 1.1, 999, dtype=torch.float64, device="cuda").unsqueeze(1).requires_grad_()
    roots = torch.arange(1, 9, dtype=torch.float64, device="cuda")
    compare("radial", lambda x: radial(x, roots, p), [x], torch.float64)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_segment_sum(dtype):
    graph = Graph(*(t.cuda() for t in random_graph(300, 9000)))
    m = torch.randn(9000, 130, dtype=dtype, device="cuda", requires_grad=True)
    compare("segment_sum", lambda m: segment_sum(m, graph), [m], dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("hidden", [24, 128])
def test_conv_of_hidden(hidden, dtype):
    problem, graph = ConvProblem.from_irreps(*all_paths("64x0e+33x1o", 2, 2)), random_graph(50, 1000)
    x, y, _ = (t.detach().cuda().requires_grad_() for t in inputs(problem, graph, dtype))
    h = torch.randn(1000, hidden, dtype=dtype, device="cuda", requires_grad=True)
    matrix = torch.randn(hidden, problem.dim_w, dtype=dtype, device="cuda", requires_grad=True)
    graph = Graph(*(t.cuda() for t in graph))
    compare("conv", lambda *t: conv_of_hidden(*t, graph, problem), [x, y, h, matrix], dtype, problem.text)


@pytest.mark.parametrize(("precision", "bound"), [("tf32x3", 1e-5), ("tf32", 1e-2)])
def test_precision_of_conv_of_hidden(precision, bound):
    """Three products of tensor cores are as good as float32; one is not, and is asked for by name."""
    problem, graph = ConvProblem.from_irreps(*all_paths("64x0e+32x1o", 1, 1)), random_graph(50, 1000)
    x, y, _ = (t.detach().cuda().requires_grad_() for t in inputs(problem, graph, torch.float32))
    h, matrix = torch.randn(1000, 64, device="cuda"), torch.randn(64, problem.dim_w, device="cuda")
    graph = Graph(*(t.cuda() for t in graph))
    value = conv_of_hidden(x, y, h, matrix, graph, problem, precision)
    exact = conv_of_hidden(x.double(), y.double(), h.double(), matrix.double(), graph, problem)
    assert relative_error(value.cpu(), exact.cpu()) < bound


@pytest.mark.parametrize("dtype", BOUNDS)
def test_conv_of_table(dtype):
    problem, graph = ConvProblem.from_irreps(*all_paths("64x0e+33x1o", 2, 2)), random_graph(50, 1000)
    x, y, _ = (t.detach().cuda().requires_grad_() for t in inputs(problem, graph, dtype))
    coefficients = torch.randn(1000, 6, dtype=dtype, device="cuda", requires_grad=True)
    table = torch.randn(30, problem.dim_w, dtype=dtype, device="cuda", requires_grad=True)
    first, graph = torch.randint(0, 25, (1000,), device="cuda"), Graph(*(t.cuda() for t in graph))
    tensors = [x, y, coefficients, table]
    compare("conv", lambda *t: conv_of_table(*t, first, graph, problem), tensors, dtype, problem.text)


def test_compiled_by_torch():
    """torch.compile without graph breaks, for two sizes: the same value and gradients."""
    problem = ConvProblem.from_irreps(*all_paths("32x0e+16x1o", 1, 1))

    @torch.compile(fullgraph=True, dynamic=True)
    def compiled(x, y, w, *graph):
        return conv(x, y, w, Graph(*graph), problem).sin().sum()

    for nodes, edges in ((20, 300), (33, 500)):
        graph = Graph(*(t.cuda() for t in random_graph(nodes, edges)))
        tensors = [t.detach().cuda().requires_grad_() for t in inputs(problem, graph)]
        found = torch.autograd.grad(compiled(*tensors, *graph), tensors)
        with use_backend("reference"):
            expected = torch.autograd.grad(conv(*tensors, graph, problem).sin().sum(), tensors)
        assert all(relative_error(a.cpu(), b.cpu()) < 1e-12 for a, b in zip(found, expected, strict=True))


def test_another_stream():
    """Kernels run on the stream that is current, after what is before them there."""
    problem, graph = ConvProblem.from_irreps(*all_paths("32x0e+16x1o", 1, 1)), random_graph(200, 5000)
    tensors = [t.detach().cuda() for t in inputs(problem, graph)]
    graph = Graph(*(t.cuda() for t in graph))
    expected = conv(*tensors, graph, problem)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x = torch.zeros_like(tensors[0])
        torch.cuda._sleep(10_000_000)
        x += tensors[0]
        found = conv(x, *tensors[1:], graph, problem)
    stream.synchronize()
    assert torch.equal(found, expected)


def test_tuned(monkeypatch, tmp_path):
    """Other block sizes, measured here: the same value, and a file that says what they are."""
    from nequip_fast.kernels import tuning

    monkeypatch.setenv("NEQUIP_FAST_CACHE", str(tmp_path))
    tuning._table.cache_clear()
    problem, graph = ConvProblem.from_irreps(*all_paths("64x0e+32x1o", 1, 1)), random_graph(200, 5000)
    tensors = [t.detach().cuda() for t in inputs(problem, graph)]
    graph = Graph(*(t.cuda() for t in graph))
    before = conv(*tensors, graph, problem)
    found = nequip_fast.tune(lambda: conv(*tensors, graph, problem), seconds=60)
    assert found
    assert (tmp_path / "tiles.json").is_file()
    assert relative_error(conv(*tensors, graph, problem).cpu(), before.cpu()) < 1e-13
    tuning._table.cache_clear()
