"""The convolution: against e3nn path by path, its derivatives, its edge cases, and its place in torch."""

from itertools import product as combinations

import numpy as np
import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from nequip_fast.errors import InputError
from nequip_fast.nn import TensorProductConv
from nequip_fast.ops import ConvProblem, Graph, Path, conv, use_backend
from nequip_fast.ops.conv import conv_reference
from tests.helpers import KERNELS, TRIPLES, all_paths, e3nn_conv, inputs, operator, random_graph, relative_error

NODES, EDGES = (5, 40) if KERNELS == "cpu" else (3, 13)  # interpreted kernels take a second for what takes 10 µs
too_large = pytest.mark.skipif(KERNELS != "cpu", reason="takes hours where kernels are interpreted")


def one_path(l1: int, l2: int, l3: int, mul: int) -> tuple:
    """Irreps and instruction of a single path; parities chosen to multiply."""
    return f"{mul}x{l1}e", f"1x{l2}e", f"{mul}x{l3}e", [(0, 0, 0)]


# What has no kernel of its own: high degrees, several edge attributes of one kind, paths without weights, path weights.
UNCOMMON = {
    "l = 5": ("7x5o", "1x1o", "7x5e", [(0, 0, 0)]),
    "l = 6": ("3x6e", "1x5o", "3x4o", [(0, 0, 0)]),
    "l = 11": ("2x11o", "1x11o", "2x11e", [(0, 0, 0)]),
    "l = 0 to 5": ("19x0e", "1x5o", "19x5o", [(0, 0, 0)]),
    "many attributes": ("11x1o", "3x1o", "11x1e", [(0, 0, 0)]),
    "many attributes of l = 5": ("5x5o", "2x1o", "5x4e", [(0, 0, 0)]),
    "no weights": ("11x1o", "1x2e", "11x1o", [(0, 0, 0, "uvu", False)]),
    "many attributes, no weights": ("11x1o", "3x2e", "11x1o", [(0, 0, 0, "uvu", False)]),
    "with and without weights": (
        "6x1o+6x0e", "2x1o+0e", "6x1e+6x1o", [(0, 0, 0), (0, 1, 1, "uvu", False, 0.5), (1, 0, 1, "uvu", True, 2.0)]
    ),
    "common and uncommon into one output": ("17x1o+17x5o", "1x2e+2x4e", "17x1o", [(0, 0, 0), (1, 1, 0)]),
    "no channels": ("0x1o+3x0e", "0x2e+1o", "0x1o+3x1o+3x2e", [(0, 0, 0), (1, 1, 1), (1, 0, 2)]),
}  # fmt: skip


def derivatives(function, tensors, cotangent, orders=2):
    """The value, and the derivatives of each order of a nonlinear scalar of those before."""
    values, inputs_ = [function(*tensors)], list(tensors)
    scalar = (values[0] * cotangent).sum()
    for _ in range(orders):
        found = torch.autograd.grad(scalar, inputs_, create_graph=True, allow_unused=True, materialize_grads=True)
        values += found
        scalar, inputs_ = sum((g * g.cos()).sum() for g in found), [*tensors, cotangent]
    return values


def assert_derivatives_equal(ours, theirs, tolerance=1e-10):
    """Value and first derivatives to 1e-12, the rest to ``tolerance``."""
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert relative_error(a, b) < (1e-12 if k < 4 else tolerance)


def compare_with_e3nn(arguments, nodes=NODES, edges=EDGES, **normalization):
    """Value, first and second derivatives of ours and e3nn's."""
    problem, graph = ConvProblem.from_irreps(*arguments, **normalization), random_graph(nodes, edges)
    tensors = inputs(problem, graph)
    cotangent = torch.randn(nodes, problem.dim_out, dtype=torch.float64, requires_grad=True)
    with use_backend(KERNELS):
        ours = derivatives(lambda *t: conv(*t, graph, problem), tensors, cotangent)
    theirs = derivatives(lambda *t: e3nn_conv(*arguments, *t, graph, **normalization), tensors, cotangent)
    assert_derivatives_equal(ours, theirs)


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_equals_e3nn_per_instruction(triple, isa):
    """Forward and first derivatives to 1e-12, second to 1e-10, in float64 and for every instruction set."""
    compare_with_e3nn(one_path(*triple, mul=11))


@pytest.mark.parametrize("name", [name for name in UNCOMMON if KERNELS == "cpu" or name != "l = 11"])
def test_uncommon_paths_equal_e3nn(name, isa):
    """The same for paths that run through the kernels for any irreps."""
    compare_with_e3nn(UNCOMMON[name])


@pytest.mark.parametrize("mul", [1, 16, 33, 70])
def test_any_number_of_channels(mul):
    """Fewer than a vector, exactly one, several and a part: the kernels take them in blocks of four, two and one."""
    compare_with_e3nn(all_paths(f"{mul}x0e+{mul}x1o", 2, 2), nodes=3, edges=20)


@pytest.mark.parametrize("irreps", combinations(("component", "norm", "none"), ("element", "path", "none")), ids=str)
def test_normalizations_equal_e3nn(irreps):
    """Every pair of e3nn's normalizations, several attributes and shared outputs included."""
    irrep_normalization, path_normalization = irreps
    for name in ("with and without weights", "common and uncommon into one output"):
        compare_with_e3nn(
            UNCOMMON[name], irrep_normalization=irrep_normalization, path_normalization=path_normalization
        )


@pytest.mark.parametrize("name", ["with and without weights", "common and uncommon into one output"])
def test_third_derivatives(name):
    """Every derivative of every operator is right, which the third of conv runs through."""
    problem, graph = ConvProblem.from_irreps(*UNCOMMON[name]), random_graph(4, 20)
    tensors = inputs(problem, graph)
    cotangent = torch.randn(4, problem.dim_out, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            results.append(derivatives(lambda *t: conv(*t, graph, problem), tensors, cotangent, orders=3))
    assert_derivatives_equal(*results)


@pytest.mark.parametrize("wanted", [w for w in combinations((False, True), repeat=3) if any(w)], ids=str)
def test_only_what_is_wanted(wanted):
    """Any of x, y and w may be constant: no gradient for it, and those of the others are unchanged."""
    problem, _ = preset_m()
    graph = random_graph(NODES, EDGES)
    tensors = [t.requires_grad_(want) for t, want in zip(inputs(problem, graph), wanted, strict=True)]
    chosen = [t for t, want in zip(tensors, wanted, strict=True) if want]
    cotangent = torch.randn(NODES, problem.dim_out, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            value = conv(*tensors, graph, problem)
            first = torch.autograd.grad(value, chosen, cotangent, create_graph=True)
            scalar = sum((g * g.cos()).sum() for g in first)
            second = torch.autograd.grad(scalar, [*chosen, cotangent], allow_unused=True, materialize_grads=True)
            results.append([value, *first, *second])
    assert all(relative_error(a, b) < 1e-11 for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_float32_per_instruction(triple, isa):
    """float32 against the float64 definition: 1e-6 in norm, forward and first derivatives."""
    problem = ConvProblem.from_irreps(*one_path(*triple, mul=19))
    graph = random_graph(5, 60)
    tensors = inputs(problem, graph, torch.float32)
    cotangent = torch.randn(5, problem.dim_out)
    with use_backend(KERNELS):
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
    check_by_finite_differences(ConvProblem.from_irreps(*one_path(*triple, mul=1)))


@pytest.mark.parametrize("name", [name for name in UNCOMMON if name != "l = 11"])
def test_finite_differences_of_uncommon_paths(name):
    """The same for the kernels of any irreps."""
    check_by_finite_differences(ConvProblem.from_irreps(*UNCOMMON[name]))


def check_by_finite_differences(problem):
    """In random directions for paths of many channels."""
    graph = Graph.from_edge_index(torch.tensor([[0, 1, 0], [1, 1, 1]]), 2)
    x, y, w = inputs(problem, graph)
    weights, fast = ([w] if problem.dim_w else []), problem.dim_x > 9

    def function(x, y, weights=w):  # gradcheck knows no empty tensors
        return conv(x, y, weights, graph, problem)

    with use_backend(KERNELS):
        assert torch.autograd.gradcheck(function, (x, y, *weights), fast_mode=fast)
        assert torch.autograd.gradgradcheck(function, (x, y, *weights), fast_mode=fast)


IRREPS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 5), st.sampled_from("eo")).map(lambda t: f"{t[0]}x{t[1]}{t[2]}"),
    min_size=1, max_size=3,
).map("+".join)  # fmt: skip
ATTRIBUTES = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 3), st.sampled_from("eo")).map(lambda t: f"{t[0]}x{t[1]}{t[2]}"),
    min_size=1, max_size=3,
).map("+".join)  # fmt: skip


@settings(max_examples=40 if KERNELS == "cpu" else 5, deadline=None)
@given(data=st.data(), irreps=IRREPS, attributes=ATTRIBUTES, nodes=st.integers(1, 6), edges=st.integers(0, 30))
def test_any_irreps_layouts_and_graphs(data, irreps, attributes, nodes, edges):
    """Generated irreps, weights, shared outputs, strides and graphs: all derivatives against the definition."""
    in1, in2 = o3.Irreps(irreps), o3.Irreps(attributes)
    out, instructions = [], []
    for (i, (mul, ir1)), (j, (_, ir2)) in combinations(enumerate(in1), enumerate(in2)):
        for ir3 in data.draw(st.lists(st.sampled_from(list(ir1 * ir2)), max_size=2, unique=True)):
            same = [k for k, other in enumerate(out) if other == (mul, ir3)]
            shared = bool(same) and data.draw(st.booleans())
            instructions.append((i, j, same[0] if shared else len(out), "uvu", data.draw(st.booleans())))
            out += [] if shared else [(mul, ir3)]
    problem, graph = ConvProblem.from_irreps(in1, in2, o3.Irreps(out), instructions), random_graph(nodes, edges)
    tensors = inputs(problem, graph)
    for k in data.draw(st.sets(st.integers(0, 2))):  # rows or columns apart in memory
        strided = torch.stack([tensors[k]] * 2, dim=2)[..., 0] if data.draw(st.booleans()) else tensors[k].T.clone().T
        tensors[k] = strided.detach().requires_grad_()
    cotangent = torch.randn(nodes, problem.dim_out, dtype=torch.float64, requires_grad=True)
    results = []
    for name in (KERNELS, "reference"):
        with use_backend(name):
            results.append(derivatives(lambda *t: conv(*t, graph, problem), tensors, cotangent))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-9)


def preset_m(l_max: int = 2) -> tuple[ConvProblem, tuple]:
    """The middle layers of preset M, as the benchmark has them, on fewer channels."""
    arguments = all_paths("24x0e+16x1o+7x2e", l_max, 2)
    return ConvProblem.from_irreps(*arguments), arguments


@pytest.mark.parametrize("isa_name", [KERNELS, "reference"])
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
    with use_backend(KERNELS):
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
    with use_backend(KERNELS):
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
    with use_backend(KERNELS):
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
    with use_backend(KERNELS):
        out = conv(*tensors, graph, problem)
    assert not out[:, :6].any()
    assert not out[:, 9:].any()
    assert out[:, 6:9].any()


def test_bit_identical_runs_and_threads(isa):
    """Same bits twice, and with one thread or two."""
    problem, _ = preset_m()
    nodes, edges = (50, 2000) if KERNELS == "cpu" else (NODES, EDGES)
    graph = random_graph(nodes, edges)
    tensors = inputs(problem, graph, torch.float32)
    cotangent = torch.randn(nodes, problem.dim_out)
    results = []
    for threads in (2, 2, 1):
        torch.set_num_threads(threads)
        out = conv(*tensors, graph, problem)
        results.append([out, *torch.autograd.grad(out, tensors, cotangent)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@too_large
def test_offsets_beyond_int32():
    """More than 2³¹ weights; only those of the last edge are not zero."""
    mul, edges = 2**20, 2**11 + 8
    problem = ConvProblem.from_irreps(f"{mul}x0e", "0e", f"{mul}x0e", [(0, 0, 0)])
    w = torch.from_numpy(np.zeros((edges, mul), np.float32))  # numpy's zeros cost no memory until they are written to
    assert w.numel() > 2**31
    w[-1] = 2.0
    graph = Graph.from_edge_index(torch.zeros(2, edges, dtype=torch.int64), 1)
    with torch.no_grad(), use_backend(KERNELS):
        out = conv(torch.ones(1, mul), torch.ones(edges, 1), w, graph, problem)
    assert torch.equal(out, torch.full((1, mul), 2.0))


@too_large
def test_large_gradients_are_streamed(isa):
    """A gradient of w beyond 4 MB is written past the caches where its rows are whole lines: the same values."""
    problem = ConvProblem.from_irreps(*all_paths("32x0e+32x1o", 1, 1))
    graph = random_graph(10, 7000)
    tensors = inputs(problem, graph, torch.float32)
    assert graph.num_edges * problem.dim_w * 4 > 4 << 20
    cotangent = torch.randn(10, problem.dim_out)
    with use_backend(KERNELS):
        grads = torch.autograd.grad(conv(*tensors, graph, problem), tensors, cotangent)
    expected = torch.autograd.grad(conv_reference(*tensors, graph, problem), tensors, cotangent)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_tensor_product_conv_equals_e3nn():
    """The module: e3nn's results with all paths of several irreps at once, odd channel counts."""
    arguments = all_paths("7x0e+13x1o+5x2e+3x1e", 3, 3)
    module, graph = TensorProductConv(*arguments), random_graph(6, 50)
    tensors = inputs(module.problem, graph)
    assert relative_error(module(*tensors, graph), e3nn_conv(*arguments, *tensors, graph)) < 1e-13
    assert module.weight_numel == module.problem.dim_w == tensors[2].shape[1]


# --- torch's own requirements ---


def test_opcheck():
    """Schema, fake kernels, autograd registration and symbolic tracing of all four operators."""
    problem = ConvProblem.from_irreps(*UNCOMMON["with and without weights"])
    graph = random_graph(5, 30)
    p, d = inputs(problem, graph), inputs(problem, graph)
    g = torch.randn(5, problem.dim_out, dtype=torch.float64, requires_grad=True)
    edges, opcheck = (*graph, problem.text), torch.library.opcheck
    opcheck(operator("conv"), (*p, *edges))
    for tangent in (d, (None, None, d[2])):
        opcheck(operator("conv_tangent"), (*p, *tangent, *edges))
        opcheck(operator("conv_gradient_tangent"), (*p, g, *tangent, *edges, True, True, True))
    opcheck(operator("conv_gradient"), (*p, g, *edges, True, True, True))
    opcheck(operator("conv_gradient"), (*p, g, *edges, False, True, False))


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, None), (None, 1, 0)], ids=str)
def test_vmap(in_dims):
    """Several x, y or w over one graph, gradients included."""
    problem, _ = preset_m()
    graph = random_graph(4, 12)
    single = [t.detach() for t in inputs(problem, graph)]
    mapped = [
        t if dim is None else torch.randn(*t.shape[:dim], 3, *t.shape[dim:], dtype=t.dtype)
        for t, dim in zip(single, in_dims, strict=True)
    ]

    for t in mapped:
        t.requires_grad_()
    with use_backend(KERNELS):
        found = torch.vmap(lambda *t: conv(*t, graph, problem), in_dims)(*mapped)
        slices = [
            [t if dim is None else t.select(dim, i) for t, dim in zip(mapped, in_dims, strict=True)] for i in range(3)
        ]
        expected = torch.stack([conv(*tensors, graph, problem) for tensors in slices])
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        results = [torch.autograd.grad(value.square().sum(), mapped) for value in (found, expected)]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_torch_func():
    """grad, grad of grad, vmap over both, vjp and jacrev: what plain autograd makes of the definition."""
    problem, graph = ConvProblem.from_irreps(*UNCOMMON["with and without weights"]), random_graph(4, 12)
    samples = [inputs(problem, graph) for _ in range(3)]
    all_three = (0, 1, 2)

    def function(*tensors):
        return conv(*tensors, graph, problem)

    gradients = torch.func.grad(lambda *t: function(*t).sin().sum(), all_three)
    second = torch.func.grad(lambda *t: sum(g.sin().sum() for g in gradients(*t)), all_three)

    def definition(tensors):
        value = conv_reference(*tensors, graph, problem)
        first = torch.autograd.grad(value.sin().sum(), tensors, create_graph=True)
        return value, first, torch.autograd.grad(sum(g.sin().sum() for g in first), tensors)

    expected = [definition(tensors) for tensors in samples]
    value, first, of_first = expected[0]
    with use_backend(KERNELS):
        out, vjp = torch.func.vjp(function, *samples[0])
        found = [out, *vjp(out.cos()), *gradients(*samples[0]), *second(*samples[0])]
        stacked = [torch.stack(tensors) for tensors in zip(*samples, strict=True)]
        mapped = zip(*torch.vmap(gradients)(*stacked), strict=True), zip(*torch.vmap(second)(*stacked), strict=True)
        jacobians = torch.func.jacrev(function, all_three)(*samples[0])
    for a, b in zip(found, [value, *first, *first, *of_first], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b, (_, *both) in zip(*mapped, expected, strict=True):
        torch.testing.assert_close([a, b], both, rtol=1e-12, atol=1e-12)
    by_rows = torch.autograd.functional.jacobian(lambda *t: conv_reference(*t, graph, problem), tuple(samples[0]))
    torch.testing.assert_close(jacobians, by_rows, rtol=1e-12, atol=1e-12)


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
    assert str(operator("conv").default) in str(exported.graph)
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


@pytest.mark.skipif(KERNELS == "cuda", reason="CUDA's kernels are emulated on the CPU")
def test_backend_by_name_never_falls_back():
    """A backend that cannot serve raises."""
    problem, _ = preset_m()
    graph = random_graph(3, 5)
    with use_backend("cuda"), pytest.raises(InputError, match="the inputs are on cpu"):
        conv(*inputs(problem, graph), graph, problem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4 1 4 4 0 0 0 5 0 0 0 1 0 1.0", "does not fit the rows"),
        ("4 1 4 4 0 0 0 4 0 0 1 1 0 1.0", "does not fit the rows"),
        ("4 1 4 4 0 0 1 1 0 0 0 1 0 1.0", "does not fit the rows"),
        ("4 1 4 4 0 0 0 4 0 0 0 1 0", "ends too early"),
        ("4 1 4 4 0 0 0 4 0 0 0 1 0 one", "no number"),
        ("4 1 5 4 0 0 0 4 0 0 0 1 0 1.0", "w must have 5 columns"),
    ],
)
def test_kernels_refuse_paths_that_do_not_fit(text, message):
    """The compiled operator checks its paths itself: wrong ones must not read past a row."""
    graph = random_graph(3, 5)
    x, y, w = torch.randn(3, 4), torch.randn(5, 1), torch.randn(5, 4)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.nequip_fast.conv(x, y, w, *graph, text)


@pytest.mark.parametrize(
    "second",
    [
        (0, 0, 0, 4, 0, 0, 2, 1, 4),
        (0, 0, 0, 4, 0, 0, 4, 1, 2),
        (1, 0, 1, 2, 2, 0, 4, 1, 4),
        (0, 0, 0, 2, 0, 0, 3, 2, 8),
    ],
    ids=["weights", "output", "input", "strided weights"],
)
def test_kernels_refuse_paths_that_overlap(second):
    """Shared weights, or irreps across each other: the gradient would keep only one of the two shares."""
    graph = random_graph(3, 5)
    x, y, w = torch.randn(3, 8), torch.randn(5, 1), torch.randn(5, 8)
    problem = ConvProblem([Path(0, 0, 0, 4, 0, 0, 0, 1, 0, 1.0), Path(*second, 1.0)], 8, 1, 8, 16)
    with pytest.raises(RuntimeError, match="paths overlap"):
        conv(x, y, w, graph, problem)


@pytest.mark.skipif(KERNELS != "cpu", reason="a GPU would have to be waited for")
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
    """Irreps that do not multiply, another mode, an irrep that is not there: refused by name."""
    for instruction, message in (
        ((0, 1, 0), "is no 'uvu' path"),
        ((0, 0, 1), "is no 'uvu' path"),
        ((0, 0, 0, "uvw"), "mode 'uvu', not 'uvw'"),
        ((0, 2, 0), "there are 1, 2 and 2 irreps"),
        ((0, 0), "expected .i_in1, i_in2, i_out"),
    ):
        with pytest.raises(InputError, match=message):
            ConvProblem.from_irreps("2x1o", "0e+1x3o", "2x1o+3x1o", [instruction])
    with pytest.raises(InputError, match="did you mean 'element'"):
        ConvProblem.from_irreps("0e", "0e", "0e", [(0, 0, 0)], path_normalization="elements")
