"""The convolution whose weights are formed in its kernels, against the one that is given them."""

import importlib

import pytest
import torch

from nequip_fast.engine.radial import hermite
from nequip_fast.errors import InputError
from nequip_fast.ops import ConvProblem, Graph, conv, conv_of_hidden, conv_of_table, hermite_coefficients, use_backend
from tests.helpers import KERNELS, all_paths, inputs, operator, random_graph, relative_error

CASES = [("7x0e+3x1o", 2, 2, 5), ("33x0e+16x1o", 1, 1, 20)]  # channels and hidden width that end anywhere in a block


def arguments_of(irreps, l_max, l_out, hidden, banded, graph):
    """(problem, x, y, h, matrix, first); h of six columns where it is banded."""
    problem = ConvProblem.from_irreps(*all_paths(irreps, l_max, l_out))
    x, y, _ = inputs(problem, graph)
    rows = 12 if banded else hidden
    h = torch.randn(graph.num_edges, 6 if banded else hidden, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(rows, problem.dim_w, dtype=torch.float64, requires_grad=True)
    first = torch.randint(0, 7, (graph.num_edges,)) if banded else None
    return problem, x, y, h, matrix, first


def formed(h, matrix, first):
    """The weights."""
    return h @ matrix if first is None else (h.unsqueeze(2) * matrix[first.unsqueeze(1) + torch.arange(6)]).sum(1)


def ours(x, y, h, matrix, first, graph, problem):
    if first is None:
        return conv_of_hidden(x, y, h, matrix, graph, problem)
    return conv_of_table(x, y, h, matrix, first, graph, problem)


@pytest.mark.parametrize("trained", [False, True], ids=["constant", "trained"])
@pytest.mark.parametrize("banded", [False, True], ids=["hidden", "table"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_derivatives(case, banded, trained, monkeypatch):
    """Value, first and second derivatives; the gradient of a matrix that is trained is the one that forms w."""
    graph = random_graph(5, 23)
    problem, *tensors, first = arguments_of(*case, banded, graph)
    tensors[3].requires_grad_(trained)
    leaves, calls = [t for t in tensors if t.requires_grad], []
    module = importlib.import_module("nequip_fast.ops.conv_of_rows")
    for fused in (module._of_rows, module._of_table):
        gradient = fused.gradient
        monkeypatch.setattr(fused, "gradient", lambda *a, gradient=gradient: (calls.append(a[-3:]), gradient(*a))[1])
    cotangent = torch.randn(5, problem.dim_out, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            if backend == "reference":
                value = conv(*tensors[:2], formed(*tensors[2:], first), graph, problem)
            else:
                value = ours(*tensors, first, graph, problem)
            some = torch.autograd.grad(value, tensors[1:2], cotangent, retain_graph=True)
            forces = torch.autograd.grad(value, tensors[:3], cotangent, create_graph=True)
            first_order = torch.autograd.grad(value, leaves, cotangent, create_graph=True)
            second = torch.autograd.grad(sum(f.sin().sum() for f in forces), [*leaves, cotangent])
            results.append([value, *some, *forces, *first_order, *second])
    for a, b in zip(*results, strict=True):
        assert relative_error(a, b) < 1e-12
    assert calls or KERNELS == "cpu" or (KERNELS == "cuda" and not banded)


@pytest.mark.parametrize("banded", [False, True], ids=["hidden", "table"])
@pytest.mark.parametrize(("nodes", "edges"), [(0, 0), (3, 0), (1, 1), (9, 40)])
def test_graphs(nodes, edges, banded):
    """No atoms, no edges, one of each, more edges than a block has."""
    graph = random_graph(nodes, edges)
    problem, *tensors, first = arguments_of("5x0e+2x1o", 1, 1, 7, banded, graph)
    with use_backend(KERNELS):
        value = ours(*tensors, first, graph, problem)
        gradients = torch.autograd.grad(value.square().sum(), tensors[:3])
    with use_backend("reference"):
        expected = conv(*tensors[:2], formed(*tensors[2:], first), graph, problem)
        expected_gradients = torch.autograd.grad(expected.square().sum(), tensors[:3])
    assert relative_error(value, expected) < 1e-13
    assert all(relative_error(a, b) < 1e-12 for a, b in zip(gradients, expected_gradients, strict=True))


def test_float32():
    """1e-6 in norm of the float64 definition."""
    graph = random_graph(6, 60)
    problem, *tensors, _ = arguments_of("16x0e+16x1o", 1, 1, 24, False, graph)
    single = [t.detach().float().requires_grad_() for t in tensors]
    with use_backend(KERNELS):
        value = conv_of_hidden(*single, graph, problem)
        gradients = torch.autograd.grad(value.square().sum(), single[:3])
    exact = conv(*tensors[:2], tensors[2] @ tensors[3], graph, problem)
    exact_gradients = torch.autograd.grad(exact.square().sum(), tensors[:3])
    for a, b in zip((value, *gradients), (exact, *exact_gradients), strict=True):
        assert relative_error(a, b) < 1e-6


def test_paths_without_weights():
    """Beside others with weights: no gradient of h comes from them."""
    in1, sh, out, instructions = all_paths("3x0e+2x1o", 1, 1)
    paths = [(*path, "uvu", i % 2 == 0) for i, path in enumerate(instructions)]
    problem, graph = ConvProblem.from_irreps(in1, sh, out, paths), random_graph(4, 15)
    x, y, _ = inputs(problem, graph)
    h, matrix = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((15, 6), (6, problem.dim_w)))
    results = []
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            value = conv_of_hidden(x, y, h, matrix, graph, problem)
            results.append([value, *torch.autograd.grad(value.sin().sum(), (x, y, h))])
    assert all(relative_error(a, b) < 1e-13 for a, b in zip(*results, strict=True))


def test_hermite_coefficients():
    """The engine's interpolation, and its derivative by r."""
    knots = torch.tensor([0.0, 0.1, 0.3, 0.35, 0.8, 1.0], dtype=torch.float64)
    table = torch.randn(6, 3, 4, dtype=torch.float64)
    x = torch.cat([knots, torch.rand(20, dtype=torch.float64)]).requires_grad_()
    first, coefficients = hermite_coefficients(knots, x)
    found, expected = formed(coefficients, table.flatten(0, 1), first), hermite(knots, table, x)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    slopes = [torch.autograd.grad(value.sin().sum(), x)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(KERNELS == "cpu", reason="there are kernels only for GPUs")
@pytest.mark.parametrize("banded", [False, True] if KERNELS == "triton" else [True], ids=str)
def test_opcheck(banded):
    """Schema, fake kernels, autograd registration and symbolic tracing of both operators."""
    graph = random_graph(3, 5)
    problem, x, y, h, matrix, first = arguments_of("2x0e+1x1o", 1, 1, 4, banded, graph)
    g = torch.randn(3, problem.dim_out, dtype=torch.float64, requires_grad=True)
    name, precision = ("conv_of_rows", ["ieee"]) if KERNELS == "triton" else ("conv_of_table", [])
    constants = *graph, problem.text, *precision
    torch.library.opcheck(operator(name), (x, y, h, matrix, first, *constants))
    torch.library.opcheck(operator(f"{name}_gradient"), (x, y, h, matrix, first, g, *constants, True, False, True))


def test_vmap():
    """Mapped over the hidden activations."""
    graph = random_graph(3, 6)
    problem, x, y, _, matrix, _ = arguments_of("2x0e+1x1o", 1, 1, 4, False, graph)
    h = torch.randn(2, 6, 4, dtype=torch.float64)
    with use_backend(KERNELS):
        mapped = torch.func.vmap(lambda h: conv_of_hidden(x, y, h, matrix, graph, problem))(h)
        each = torch.stack([conv_of_hidden(x, y, one, matrix, graph, problem) for one in h])
    torch.testing.assert_close(mapped, each)


def test_bad_input_is_named():
    """One sentence each."""
    graph = random_graph(3, 6)
    problem, x, y, h, matrix, _ = arguments_of("2x0e+1x1o", 1, 1, 4, False, graph)
    first = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(InputError, match=r"x must be \[3, 5\] for this graph and problem, got \[2, 5\]"):
        conv_of_hidden(x[1:], y, h, matrix, graph, problem)
    with pytest.raises(InputError, match=r"y must be \[6, 4\] for this graph and problem, got \[6, 3\]"):
        conv_of_hidden(x, y[:, 1:], h, matrix, graph, problem)
    with pytest.raises(InputError, match=r"h must be \[6, 1 or more\] for this graph, got \[5, 4\]"):
        conv_of_hidden(x, y, h[1:], matrix, graph, problem)
    with pytest.raises(InputError, match=r"h must be \[6, 1 or more\] for this graph, got \[6, 0\]"):
        conv_of_hidden(x, y, h[:, :0], matrix[:0], graph, problem)
    with pytest.raises(InputError, match=r"the matrix must be \[4, \d+\], got \[3, \d+\]"):
        conv_of_hidden(x, y, h, matrix[1:], graph, problem)
    with pytest.raises(InputError, match=r"h is torch\.float32 .* but x torch\.float64"):
        conv_of_hidden(x, y, h.float(), matrix, graph, problem)
    with pytest.raises(InputError, match=r"first must lie between 0 and 0, got 0 … 1"):
        conv_of_table(x, y, h, matrix, first + torch.arange(6) // 5, graph, problem)
    with pytest.raises(InputError, match=r"first must be int64 \[6\] on cpu, got torch\.int32 \[6\]"):
        conv_of_table(x, y, h, matrix, first.int(), graph, problem)
    with pytest.raises(InputError, match=r"precision='tf31', expected one of ieee, tf32x3, tf32"):
        conv_of_hidden(x, y, h, matrix, graph, problem, "tf31")


def test_graph_is_that_of_conv():
    """A graph whose edges are in any order gives what its sorted one gives."""
    edges = torch.randint(0, 4, (2, 12))
    order = edges[0].argsort()
    problem, x, y, h, matrix, _ = arguments_of("3x0e", 0, 0, 4, False, Graph.from_edge_index(edges, 4))
    with use_backend(KERNELS):
        one = conv_of_hidden(x, y, h, matrix, Graph.from_edge_index(edges, 4), problem)
        other = conv_of_hidden(x, y[order], h[order], matrix, Graph.from_edge_index(edges[:, order], 4), problem)
    torch.testing.assert_close(one, other)
