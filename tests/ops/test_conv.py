"""The convolution: against e3nn path by path, its derivatives, its edge cases, and its place in torch."""

import numpy as np
import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from nequip_fast.errors import InputError
from nequip_fast.nn import TensorProductConv
from nequip_fast.ops import ConvProblem, Graph, conv, use_backend
from nequip_fast.ops.conv import conv_reference
from tests.helpers import TRIPLES, all_paths, e3nn_conv, inputs, random_graph, relative_error


def one_path(l1: int, l2: int, l3: int, mul: int) -> tuple:
    """Irreps and instruction of a single path; parities chosen to multiply."""
    return f"{mul}x{l1}e", f"1x{l2}e", f"{mul}x{l3}e", [(0, 0, 0)]


def derivatives(function, tensors, cotangent):
    """Value, first derivatives, and second derivatives of a nonlinear scalar of the first."""
    value = function(*tensors)
    first = torch.autograd.grad(value, tensors, cotangent, create_graph=True)
    second = torch.autograd.grad(sum((g * g.cos()).sum() for g in first), [*tensors, cotangent])
    return value, first, second


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_equals_e3nn_per_instruction(triple, isa):
    """Forward and first derivatives to 1e-12, second to 1e-10, in float64 and for every instruction set."""
    problem_args = one_path(*triple, mul=11)
    problem = ConvProblem.from_irreps(*problem_args)
    graph = random_graph(5, 40)
    tensors = inputs(problem, graph)
    cotangent = torch.randn(5, problem.dim_out, dtype=torch.float64, requires_grad=True)
    with use_backend("cpu"):
        ours = derivatives(lambda x, y, w: conv(x, y, w, graph, problem), tensors, cotangent)
    irreps = [o3.Irreps(i) for i in problem_args[:3]]
    theirs = derivatives(lambda x, y, w: e3nn_conv(*irreps, [(0, 0, 0)], x, y, w, graph), tensors, cotangent)
    assert relative_error(ours[0], theirs[0]) < 1e-12
    assert all(relative_error(a, b) < 1e-12 for a, b in zip(ours[1], theirs[1], strict=True))
    assert all(relative_error(a, b) < 1e-10 for a, b in zip(ours[2], theirs[2], strict=True))


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_float32_per_instruction(triple, isa):
    """float32 against the float64 definition: 1e-6 in norm, forward and first derivatives."""
    problem = ConvProblem.from_irreps(*one_path(*triple, mul=19))
    graph = random_graph(5, 60)
    tensors = inputs(problem, graph, torch.float32)
    cotangent = torch.randn(5, problem.dim_out)
    with use_backend("cpu"):
        value = conv(*tensors, graph, problem)
        first = torch.autograd.grad(value, tensors, cotangent)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    reference = conv_reference(*exact, graph, problem)
    reference_first = torch.autograd.grad(reference, exact, cotangent.double())
    assert relative_error(value, reference) < 1e-6
    assert all(relative_error(a, b) < 1e-6 for a, b in zip(first, reference_first, strict=True))


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_finite_differences_per_instruction(triple):
    """gradcheck and gradgradcheck: no derivative is taken on trust, not even e3nn's."""
    problem = ConvProblem.from_irreps(*one_path(*triple, mul=1))
    graph = Graph.from_edge_index(torch.tensor([[0, 1, 0], [1, 1, 1]]), 2)
    tensors = inputs(problem, graph)
    with use_backend("cpu"):
        assert torch.autograd.gradcheck(lambda *t: conv(*t, graph, problem), tensors)
        assert torch.autograd.gradgradcheck(lambda *t: conv(*t, graph, problem), tensors)


IRREPS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 3), st.sampled_from("eo")).map(lambda t: f"{t[0]}x{t[1]}{t[2]}"),
    min_size=1, max_size=3,
).map("+".join)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(irreps=IRREPS, l_max=st.integers(0, 3), nodes=st.integers(1, 6), edges=st.integers(0, 30))
def test_any_irreps_and_graphs(irreps, l_max, nodes, edges):
    """Generated irreps and graphs, all derivatives against the plain-torch definition."""
    in1, sh, out, instructions = all_paths(irreps, l_max, 3)
    problem = ConvProblem.from_irreps(in1, sh, out, instructions)
    graph = random_graph(nodes, edges)
    tensors = inputs(problem, graph)
    cotangent = torch.randn(nodes, problem.dim_out, dtype=torch.float64, requires_grad=True)
    results = []
    for name in ("cpu", "reference"):
        with use_backend(name):
            results.append(derivatives(lambda *t: conv(*t, graph, problem), tensors, cotangent))
    (value, first, second), (value_ref, first_ref, second_ref) = results
    for a, b in zip((value, *first, *second), (value_ref, *first_ref, *second_ref), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def preset_m(l_max: int = 2) -> tuple[ConvProblem, tuple]:
    """The middle layers of preset M, as the benchmark has them, on fewer channels."""
    arguments = all_paths("24x0e+16x1o+7x2e", l_max, 2)
    return ConvProblem.from_irreps(*arguments), arguments


@pytest.mark.parametrize("isa_name", ["cpu", "reference"])
def test_several_paths_share_an_output(isa_name):
    """Instructions into one output add up, with e3nn's path normalisation."""
    args = "4x0e+4x1o", "0e+1o", "4x1o", [(0, 1, 0), (1, 0, 0)]
    problem, graph = ConvProblem.from_irreps(*args), random_graph(4, 12)
    tensors = inputs(problem, graph)

    expected = e3nn_conv(*map(o3.Irreps, args[:3]), args[3], *tensors, graph)
    with use_backend(isa_name):
        assert relative_error(conv(*tensors, graph, problem), expected) < 1e-12


@pytest.mark.parametrize(("nodes", "edges"), [(0, 0), (1, 0), (3, 0), (1, 1)])
def test_empty_graphs(nodes, edges):
    """No atoms, no edges, one atom, one self edge: shapes and gradients are right."""
    problem, _ = preset_m()
    graph = Graph.from_edge_index(torch.zeros(2, edges, dtype=torch.int64), nodes)
    tensors = inputs(problem, graph)
    with use_backend("cpu"):
        out = conv(*tensors, graph, problem)
        grads = torch.autograd.grad(out.sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in grads), tensors, allow_unused=True)
    assert out.shape == (nodes, problem.dim_out)
    assert [g.shape for g in grads] == [t.shape for t in tensors]
    assert edges or not out.any()
    torch.testing.assert_close(out, conv_reference(*tensors, graph, problem))
    assert all(g is None or g.isfinite().all() for g in second)


def test_unsorted_duplicate_and_self_edges():
    """The order of the edges does not matter; repeats count as often as they stand there."""
    problem, _ = preset_m()
    edge_index = torch.tensor([[2, 0, 2, 1, 1, 2, 0], [1, 1, 1, 1, 0, 2, 2]])
    shuffle = torch.tensor([3, 6, 0, 5, 1, 2, 4])
    graph = Graph.from_edge_index(edge_index, 4)
    x, y, w = inputs(problem, graph)
    with use_backend("cpu"):
        out = conv(x, y, w, graph, problem)
        shuffled = conv(x, y[shuffle], w[shuffle], Graph.from_edge_index(edge_index[:, shuffle], 4), problem)
    torch.testing.assert_close(out, shuffled, rtol=1e-13, atol=1e-13)
    assert not out[3].any()
    assert relative_error(out, conv_reference(x, y, w, graph, problem)) < 1e-14


def test_non_contiguous_inputs_and_cotangents():
    """Transposed, strided and expanded tensors give what their contiguous copies give."""
    problem, _ = preset_m()
    graph = random_graph(5, 30)
    x, y, w = (t.detach() for t in inputs(problem, graph))
    strided = [torch.stack([t, t], dim=-1)[..., 0].requires_grad_() for t in (x, y, w)]
    assert not any(t.is_contiguous() for t in strided)
    plain = [t.clone().requires_grad_() for t in (x, y, w)]
    with use_backend("cpu"):
        for tensors in (strided, plain):
            conv(*tensors, graph, problem).sum().backward()  # the cotangent of sum() is an expanded scalar
    for a, b in zip(strided, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_uncovered_columns_are_zero():
    """Irreps of the output, and weights, that no path uses are zero, not whatever memory held."""
    irreps = "3x0e", "0e", "2x1o+3x0e+4x2e", [(0, 0, 1)]
    problem = ConvProblem.from_irreps(*irreps)
    graph = random_graph(3, 9)
    tensors = inputs(problem, graph)
    poison = [torch.full((3, problem.dim_out), float("nan"), dtype=torch.float64) for _ in range(8)]
    del poison
    with use_backend("cpu"):
        out = conv(*tensors, graph, problem)
    assert not out[:, :6].any()
    assert not out[:, 9:].any()
    assert out[:, 6:9].any()


def test_bit_identical_runs_and_threads(isa):
    """Same bits twice, and with one thread or two."""
    problem, _ = preset_m()
    graph = random_graph(50, 2000)
    tensors = inputs(problem, graph, torch.float32)
    cotangent = torch.randn(50, problem.dim_out)
    results = []
    for threads in (2, 2, 1):
        torch.set_num_threads(threads)
        out = conv(*tensors, graph, problem)
        results.append([out, *torch.autograd.grad(out, tensors, cotangent)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_offsets_beyond_int32():
    """More than 2³¹ weights; only those of the last edge are not zero."""
    mul, edges = 2**20, 2**11 + 8
    problem = ConvProblem.from_irreps(f"{mul}x0e", "0e", f"{mul}x0e", [(0, 0, 0)])
    w = torch.from_numpy(np.zeros((edges, mul), np.float32))  # numpy's zeros cost no memory until they are written to
    assert w.numel() > 2**31
    w[-1] = 2.0
    graph = Graph.from_edge_index(torch.zeros(2, edges, dtype=torch.int64), 1)
    with torch.no_grad(), use_backend("cpu"):
        out = conv(torch.ones(1, mul), torch.ones(edges, 1), w, graph, problem)
    assert torch.equal(out, torch.full((1, mul), 2.0))


def test_no_tensor_of_messages():
    """Forward and backward never hold [E, dim_out]: peak memory stays below one such tensor."""
    problem = ConvProblem.from_irreps(*all_paths("16x0e+16x1o+16x2e", 2, 2))
    graph = random_graph(20, 4000)
    x, y, w = inputs(problem, graph, torch.float32)
    cotangent = torch.randn(20, problem.dim_out)
    messages = graph.num_edges * problem.dim_out * 4
    with torch.profiler.profile(profile_memory=True) as profile:
        torch.autograd.grad(conv(x, y, w, graph, problem), (x, y, w), cotangent)
    largest = max(event.cpu_memory_usage for event in profile.events())
    gradients = (w.numel() + y.numel() + x.numel()) * 4
    assert largest <= gradients * 1.1 < messages


def test_tensor_product_conv_equals_e3nn():
    """The module: e3nn's results with all paths of several irreps at once, odd channel counts."""
    arguments = all_paths("7x0e+13x1o+5x2e+3x1e", 3, 3)
    module, graph = TensorProductConv(*arguments), random_graph(6, 50)
    tensors = inputs(module.problem, graph)
    assert relative_error(module(*tensors, graph), e3nn_conv(*arguments, *tensors, graph)) < 1e-13
    assert module.weight_numel == module.problem.dim_w == tensors[2].shape[1]


# --- torch's own requirements ---


def test_opcheck():
    """Schema, fake kernels, autograd registration and symbolic tracing of both operators."""
    problem, _ = preset_m()
    graph = random_graph(5, 30)
    x, y, w = inputs(problem, graph)
    g = torch.randn(5, problem.dim_out, dtype=torch.float64, requires_grad=True)
    numbers = problem.integers, problem.coefficients
    torch.library.opcheck(torch.ops.nequip_fast.conv, (x, y, w, *graph, *numbers, problem.dim_out))
    torch.library.opcheck(torch.ops.nequip_fast.conv_edge_grad, (x, g, y, w, *graph, *numbers))


def forces_like(problem: ConvProblem):
    """A function that differentiates inside, as a force field does."""

    def function(x, y, w, edge_index):
        graph = Graph.from_edge_index(edge_index, x.shape[0])
        energy = conv(x, y, w, graph, problem).square().sum()
        return torch.autograd.grad(energy, (y, w), create_graph=True)

    return function


def test_make_fx_with_dynamic_shapes():
    """Traced once symbolically, right for other sizes."""
    problem, _ = preset_m()
    function = forces_like(problem)

    def arguments(nodes, edges):
        graph = random_graph(nodes, edges)
        return *inputs(problem, graph), torch.stack([graph.receiver, graph.sender])

    traced = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments(5, 30))
    other = arguments(7, 41)
    for a, b in zip(traced(*other), function(*other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_compile_fullgraph_dynamic():
    """torch.compile without graph breaks, for changing sizes, gradients included."""
    problem, _ = preset_m()

    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def compiled(x, y, w, graph):
        return conv(x, y, w, graph, problem).square().sum()

    for nodes, edges in ((5, 30), (8, 51)):
        graph = random_graph(nodes, edges)
        tensors = inputs(problem, graph)
        grads = torch.autograd.grad(compiled(*tensors, graph), tensors)
        expected = torch.autograd.grad(conv_reference(*tensors, graph, problem).square().sum(), tensors)
        assert all(relative_error(a, b) < 1e-12 for a, b in zip(grads, expected, strict=True))


def test_export():
    """torch.export keeps the operator as one node."""
    problem, _ = preset_m()

    class Module(torch.nn.Module):
        def forward(self, x, y, w, edge_index):
            return conv(x, y, w, Graph.from_edge_index(edge_index, x.shape[0]), problem)

    graph = random_graph(5, 30)
    arguments = *(t.detach() for t in inputs(problem, graph)), torch.stack([graph.receiver, graph.sender])
    exported = torch.export.export(Module(), arguments)
    assert "nequip_fast.conv" in str(exported.graph)
    torch.testing.assert_close(exported.module()(*arguments), Module()(*arguments))


# --- bad input: one sentence each ---


def test_wrong_shapes_and_dtypes_are_named():
    """The message says which tensor, what it must be and what it is."""
    problem, _ = preset_m()
    graph = random_graph(5, 30)
    x, y, w = (t.detach() for t in inputs(problem, graph))
    with pytest.raises(InputError, match=r"w must be \[30, \d+\].* got \[29, "):
        conv(x, y, w[1:], graph, problem)
    with pytest.raises(InputError, match=r"y is torch\.float32 .* but x torch\.float64"):
        conv(x, y.float(), w, graph, problem)


@pytest.mark.filterwarnings("ignore:nequip_fast")
def test_backend_by_name_never_falls_back():
    """A backend that cannot serve raises; ``auto`` goes to the definition."""
    problem = ConvProblem.from_irreps("2x5e", "0e", "2x5e", [(0, 0, 0)])
    graph = random_graph(3, 5)
    tensors = inputs(problem, graph)
    with use_backend("cpu"), pytest.raises(InputError, match=r"'cpu' cannot run conv: its kernels stop at l = 4"):
        conv(*tensors, graph, problem)
    with use_backend("cuda"), pytest.raises(InputError, match="no cuda kernel yet"):
        conv(*tensors, graph, problem)
    torch.testing.assert_close(conv(*tensors, graph, problem), conv_reference(*tensors, graph, problem))


def test_kernels_refuse_paths_outside_the_rows():
    """The compiled operator checks its path table itself: a wrong one must not read past a row."""
    graph = random_graph(3, 5)
    x, y, w = torch.randn(3, 4), torch.randn(5, 1), torch.randn(5, 4)
    with pytest.raises(RuntimeError, match="does not fit the rows"):
        torch.ops.nequip_fast.conv(x, y, w, *graph, [0, 0, 0, 5, 0, 0, 0, 0], [1.0], 4)


@pytest.mark.parametrize(
    "second",
    [(0, 0, 0, 4, 0, 0, 2, 4), (0, 0, 0, 4, 0, 0, 4, 2), (1, 0, 1, 2, 2, 0, 4, 4)],
    ids=["weights", "output", "input"],
)
def test_kernels_refuse_paths_that_overlap(second):
    """Shared weights, or irreps across each other: the gradient would keep only one of the two shares."""
    graph = random_graph(3, 5)
    x, y, w = torch.randn(3, 8), torch.randn(5, 1), torch.randn(5, 8)
    with pytest.raises(RuntimeError, match="paths overlap"):
        torch.ops.nequip_fast.conv(x, y, w, *graph, [0, 0, 0, 4, 0, 0, 0, 0, *second], [1.0, 1.0], 16)


def test_kernels_refuse_indices_out_of_range():
    """A node or an edge that is not there is an error, not a read of foreign memory."""
    problem, _ = preset_m()
    x, y, w = (t.detach() for t in inputs(problem, random_graph(3, 5)))
    for missing in (3, -1):
        graph = random_graph(3, 5)._replace(sender=torch.tensor([0, 1, 2, 2, missing]))
        with pytest.raises(RuntimeError, match=r"sender names something outside 0 … 2"):
            conv(x, y, w, graph, problem)
    graph = random_graph(3, 5)._replace(receiver_order=torch.tensor([0, 1, 2, 3, 5]))
    with pytest.raises(RuntimeError, match=r"receiver_order names something outside 0 … 4"):
        conv(x, y, w, graph, problem)
    graph = random_graph(3, 5)._replace(receiver_ptr=torch.tensor([0, 4, 2, 5]))
    with pytest.raises(RuntimeError, match="receiver_ptr must rise"):
        conv(x, y, w, graph, problem)


def test_instructions_that_are_not_uvu():
    """Irreps that do not multiply, or change multiplicity, are refused by name."""
    with pytest.raises(InputError, match="is no 'uvu' path"):
        ConvProblem.from_irreps("2x1o", "1o", "2x3e", [(0, 0, 0)])
    with pytest.raises(InputError, match="is no 'uvu' path"):
        ConvProblem.from_irreps("2x1o", "0e", "3x1o", [(0, 0, 0)])
