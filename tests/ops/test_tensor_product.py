"""The tensor product: against e3nn mode by mode, its derivatives, its edge cases, and its place in torch."""

import importlib
import time
from itertools import accumulate
from math import prod

import numpy as np
import pytest
import torch
import torch.utils._pytree as pytree
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from nequip_fast.dtypes import default_dtype
from nequip_fast.errors import InputError
from nequip_fast.ops import ProductPath, ProductProblem, tensor_product, use_backend
from nequip_fast.ops.description import describe
from nequip_fast.ops.product_paths import MODES
from nequip_fast.ops.tensor_product import batch_size, tensor_product_reference
from tests.helpers import KERNELS, TRIPLES, operator, relative_error

MULTIPLICITIES = {  # of x, y and the output in each mode; odd ones, so that no vector is ever full
    "uvw": (5, 3, 7),
    "uvu": (7, 3, 7),
    "uvv": (5, 7, 7),
    "uuw": (5, 5, 3),
    "uuu": (13, 13, 13),
    "uvuv": (5, 3, 15),
    "uvu<v": (5, 5, 10),
    "u<vw": (5, 5, 3),
}
KINDS = [(mode, True) for mode in MODES] + [(mode, False) for mode in MODES if mode not in ("uvw", "u<vw")]


def one_path(mode: str, degrees: tuple[int, int, int], weights: bool = True, muls=None):
    """The problem of a single path, with the blocks off the start of their rows, and e3nn's instruction for it."""
    l1, l2, l3 = degrees
    mul1, mul2, mul3 = muls or MULTIPLICITIES[mode]
    if mode == "uuw" and not weights:
        mul3 = 1
    irreps = o3.Irreps(f"1x0e+{mul1}x{l1}e"), o3.Irreps(f"2x1o+{mul2}x{l2}e"), o3.Irreps(f"3x0o+{mul3}x{l3}e")
    path = ProductPath(mode, *degrees, mul1, mul2, mul3, 1, 6, 0 if weights else -1, 3, 1.0)
    size = int(torch.tensor(path.weight_shape).prod()) if weights else 0
    instruction = (1, 1, 1, mode, weights)
    with default_dtype(torch.float64):
        oracle = o3.TensorProduct(
            *irreps, [instruction], irrep_normalization="none", path_normalization="none", internal_weights=False,
            shared_weights=False,
        )  # fmt: skip
    return ProductProblem([path], *(i.dim for i in irreps[:2]), size, irreps[2].dim), oracle


def inputs(problem: ProductProblem, rows=(4, 4, 4), dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Random x, y, w that require gradients."""
    dims = problem.dim_x, problem.dim_y, problem.dim_w
    return [torch.randn(n, dim, dtype=dtype, requires_grad=True) for n, dim in zip(rows, dims, strict=True)]


@pytest.mark.parametrize(("mode", "weights"), KINDS)
@pytest.mark.parametrize("degrees", [(0, 0, 0), (1, 1, 1), (2, 1, 3), (0, 2, 2), (2, 2, 0), (6, 5, 4)], ids=str)
def test_definition_equals_e3nn(mode, degrees, weights):
    """The plain-torch definition of every mode, with and without weights."""
    problem, oracle = one_path(mode, degrees, weights)
    x, y, w = inputs(problem)
    assert relative_error(tensor_product_reference(x, y, w, problem), oracle(x, y, w)) < 1e-13


def derivatives(function, tensors, cotangent):
    """Value, first derivatives, and second derivatives of a nonlinear scalar of the first."""
    value = function(*tensors)
    tensors = [t for t in tensors if t.numel()]
    first = torch.autograd.grad(value, tensors, cotangent, create_graph=True)
    second = torch.autograd.grad(sum((g * g.cos()).sum() for g in first), [*tensors, cotangent])
    return value, first, second


def assert_equals_oracle(problem, oracle, rows, batch):
    """The kernel against e3nn: values and first derivatives to 1e-12, second to 1e-10."""
    tensors = inputs(problem, rows)
    cotangent = torch.randn(batch, problem.dim_out, dtype=torch.float64, requires_grad=True)
    with use_backend(KERNELS):
        ours = derivatives(lambda x, y, w: tensor_product(x, y, w, problem), tensors, cotangent)
    theirs = derivatives(lambda *t: oracle(*(a.expand(batch, -1) for a in t)), tensors, cotangent)
    assert relative_error(ours[0], theirs[0]) < 1e-12
    assert all(relative_error(a, b) < 1e-12 for a, b in zip(ours[1], theirs[1], strict=True))
    assert all(relative_error(a, b) < 1e-10 for a, b in zip(ours[2], theirs[2], strict=True))


DEGREES = [*TRIPLES, (5, 3, 4), (6, 6, 6), (2, 5, 6)]
too_large = pytest.mark.skipif(KERNELS != "cpu", reason="takes hours where kernels are interpreted")


@pytest.mark.parametrize(
    ("mode", "weights", "degrees"),
    [
        pytest.param(*kind, degrees, id=f"{kind}-{degrees}")
        for i, degrees in enumerate(DEGREES)
        for j, kind in enumerate(KINDS)
        if KERNELS == "cpu" or (i + j) % len(KINDS) == 0  # interpreted, each path in one mode
    ],
)
def test_equals_e3nn(mode, weights, degrees):
    """Every mode, with and without weights, for all compiled degrees and some that are not; a tile and a bit."""
    problem, oracle = one_path(mode, degrees, weights)
    assert_equals_oracle(problem, oracle, (11, 11, 11), 11)


ROWS = [(21, 21, 1), (1, 21, 21), (21, 1, 21), (1, 1, 21), (1, 21, 1), (21, 1, 1), (1, 1, 1), (3, 3, 3), (140, 140, 1)]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize(("mode", "weights"), KINDS)
@pytest.mark.parametrize("degrees", [(2, 1, 2), (1, 6, 5)] if KERNELS == "cpu" else [(1, 0, 1)], ids=str)
def test_shared_rows(mode, weights, degrees, rows, isa):
    """One row stands for all and its gradient is a sum over them, with every instruction set."""
    problem, oracle = one_path(mode, degrees, weights)
    assert_equals_oracle(problem, oracle, rows, max(rows))


IRREPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=3)


@st.composite
def problems(draw):
    """Any paths between any irreps, inputs and outputs shared as often as it comes, weights where there may be some."""
    blocks = [draw(IRREPS), draw(IRREPS)]
    starts = [list(accumulate((mul * (2 * l + 1) for mul, l in block), initial=0)) for block in blocks]
    paths, dim_w, dim_out = [], 0, 0
    for _ in range(draw(st.integers(0, 4))):
        i, j = (draw(st.integers(0, len(block) - 1)) for block in blocks)
        (mul1, l1), (mul2, l2) = blocks[0][i], blocks[1][j]
        alike = mul1 == mul2
        mode = draw(st.sampled_from([mode for mode in MODES if alike or mode in ("uvw", "uvu", "uvv", "uvuv")]))
        weighted = mode in ("uvw", "uuw", "u<vw") or draw(st.booleans())
        pairs = mul1 * (mul1 - 1) // 2
        mixed = draw(st.integers(1, 9))
        mul3 = {"uvu": mul1, "uvv": mul2, "uuu": mul1, "uvuv": mul1 * mul2, "uvu<v": pairs}.get(mode, mixed)
        l3 = draw(st.integers(abs(l1 - l2), l1 + l2))
        at = starts[0][i], starts[1][j], dim_w if weighted else -1, dim_out
        paths.append(ProductPath(mode, l1, l2, l3, mul1, mul2, mul3, *at, draw(st.floats(-2, 2))))
        dim_w += prod(paths[-1].weight_shape) if weighted else 0
        if draw(st.booleans()):  # else the next path adds to the columns of this one
            dim_out += mul3 * (2 * l3 + 1)
    width = max([dim_out, *(path.out + path.mul3 * (2 * path.l3 + 1) for path in paths)])
    return ProductProblem(paths, starts[0][-1], starts[1][-1], dim_w, width)


@settings(max_examples=60 if KERNELS == "cpu" else 5, deadline=None)
@given(problem=problems(), batch=st.integers(0, 70), shared=st.tuples(*[st.booleans()] * 3), repeats=st.booleans())
def test_any_paths(problem, batch, shared, repeats):
    """Generated paths and batches, all derivatives against the plain-torch definition."""
    tensors = inputs(problem, [1 if one else batch for one in shared])
    if repeats and len(tensors[1]):
        tensors = with_repeats(tensors)
    cotangent = torch.randn(batch_size(*tensors), problem.dim_out, dtype=torch.float64, requires_grad=True)
    results = []
    for name in (KERNELS, "reference"):
        with use_backend(name):
            # the zero joins operands that no path uses to the graph
            value = tensor_product(*tensors, problem) + 0 * sum(t.square().sum() for t in tensors)
            first = torch.autograd.grad(value, tensors, cotangent, create_graph=True)
            total = sum((g * g.cos()).sum() for g in first)
            second = torch.autograd.grad(total, [*tensors, cotangent])
            results.append([value, *first, *second])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rows", [(0, 0, 0), (0, 1, 0), (1, 0, 1), (0, 0, 1)], ids=str)
def test_no_samples(rows):
    """An empty batch gives an empty product, and a gradient of zero to what would have been shared."""
    problem, _ = one_path("uvw", (1, 1, 2))
    tensors = inputs(problem, rows)
    with use_backend(KERNELS):
        out = tensor_product(*tensors, problem)
        first = torch.autograd.grad(out.sum(), tensors, create_graph=True)
        torch.autograd.grad(sum((g**2).sum() for g in first), tensors, allow_unused=True)
    assert out.shape == (0, problem.dim_out)
    assert [g.shape for g in first] == [t.shape for t in tensors]
    assert not any(g.any() for g in first)


@pytest.mark.parametrize(("mode", "weights"), KINDS)
def test_float32(mode, weights, isa):
    """float32 against the float64 definition: 1e-6 in norm, forward and first derivatives."""
    problem, _ = one_path(mode, (2, 3, 2), weights)
    for rows in ((40, 40, 40), (40, 40, 1)):
        tensors = inputs(problem, rows, torch.float32)
        cotangent = torch.randn(40, problem.dim_out)
        with use_backend(KERNELS):
            value = tensor_product(*tensors, problem)
            first = torch.autograd.grad(value, tensors, cotangent)
        exact = [t.detach().double().requires_grad_() for t in tensors]
        reference = tensor_product_reference(*exact, problem)
        reference_first = torch.autograd.grad(reference, exact, cotangent.double(), allow_unused=True)
        assert relative_error(value, reference) < 1e-6
        for a, b in zip(first, reference_first, strict=True):
            assert b is None or relative_error(a, b) < 1e-6


@pytest.mark.parametrize(("mode", "weights"), KINDS)
@pytest.mark.parametrize("rows", [(2, 2, 2), (2, 2, 1)], ids=str)
def test_finite_differences(mode, weights, rows):
    """gradcheck and gradgradcheck: no derivative is taken on trust, not even e3nn's."""
    muls = {"uvw": (2, 1, 2), "uvu": (2, 1, 2), "uvv": (1, 2, 2), "uuw": (2, 2, 2), "uuu": (2, 2, 2), "uvuv": (2, 1, 2)}
    muls |= {"uvu<v": (2, 2, 1), "u<vw": (2, 2, 2)}
    problem, _ = one_path(mode, (1, 2, 1), weights, muls[mode])
    tensors = [t for t in inputs(problem, rows) if t.numel()]

    def function(*t):
        return tensor_product(*(t if len(t) == 3 else (*t, t[0].new_empty(1, 0))), problem)

    with use_backend(KERNELS):
        assert torch.autograd.gradcheck(function, tensors)
        assert torch.autograd.gradgradcheck(function, tensors)


def of_module(product: o3.TensorProduct) -> ProductProblem:
    """The problem of one of e3nn's modules."""
    starts = [
        [s.start for s in irreps.slices()] for irreps in (product.irreps_in1, product.irreps_in2, product.irreps_out)
    ]
    paths, dim_w = [], 0
    for i1, i2, i3, mode, has_weight, coefficient, _ in product.instructions:
        (mul1, ir1), (mul2, ir2), (mul3, ir3) = product.irreps_in1[i1], product.irreps_in2[i2], product.irreps_out[i3]
        at = starts[0][i1], starts[1][i2], dim_w if has_weight else -1, starts[2][i3]
        paths.append(ProductPath(mode, ir1.l, ir2.l, ir3.l, mul1, mul2, mul3, *at, coefficient))
        dim_w += int(torch.tensor(paths[-1].weight_shape).prod()) if has_weight else 0
    return ProductProblem(paths, product.irreps_in1.dim, product.irreps_in2.dim, dim_w, product.irreps_out.dim)


MODULES = {
    "self_connection": lambda: o3.FullyConnectedTensorProduct("24x0e+7x1o+3x2e", "5x0e", "13x0e+24x1o+2x2e"),
    "attributes of two kinds": lambda: o3.FullyConnectedTensorProduct(
        "9x0e+2x1o+3x5o", "3x0e+2x0e", "16x0e+8x0e+16x1o+3x5o"
    ),
    "fully_connected": lambda: o3.FullyConnectedTensorProduct("7x0e+5x1o", "3x0e+2x1o+1x2e", "5x0e+4x1o+3x2e+2x1e"),
    "elementwise": lambda: o3.ElementwiseTensorProduct("5x0e+4x1o+2x2e", "4x0e+7x1o"),
    "full": lambda: o3.FullTensorProduct("5x0e+2x1o", "3x1o+2x2e"),
    "square": lambda: o3.TensorSquare("5x0e+3x1o+2x2e", "7x0e+3x1e+4x2e"),
    "some_weights": lambda: o3.TensorProduct(
        "5x0e+3x1o", "5x0e+3x1o", "5x0e+3x1o", [(0, 0, 0, "uuu", True), (0, 1, 1, "uvv", False), (1, 1, 0, "uvw", True)]
    ),
    "full_square": lambda: o3.TensorSquare("3x0e+3x1o"),
}


def built(name):
    """One of e3nn's modules in float64, and its problem."""
    with default_dtype(torch.float64):
        product = MODULES[name]()
    return product, of_module(product)


@pytest.fixture(params=MODULES)
def module(request):
    """Each of e3nn's modules."""
    return built(request.param)


@pytest.fixture(params=MODULES if KERNELS == "cpu" else ["some_weights"])
def traced_module(request):
    """Those that are called many times, fewer where kernels are interpreted."""
    return built(request.param)


def with_repeats(tensors):
    """The same with 3 different rows of y, in no order."""
    x, y, w = (t.detach() for t in tensors)
    return [t.clone().requires_grad_() for t in (x, y[torch.randint(0, min(len(y), 3), (len(y),))], w)]


@pytest.mark.parametrize("repeats", [False, True] if KERNELS == "cpu" else [True], ids=str)
def test_equals_e3nn_modules(module, repeats, isa):
    """All paths of e3nn's modules at once, and rows of y that repeat as type embeddings do: every derivative."""
    product, problem = module
    tensors = inputs(problem, (50, 50, 1))
    if repeats:
        tensors = with_repeats(tensors)
    cotangent = torch.randn(50, problem.dim_out, dtype=torch.float64, requires_grad=True)
    with use_backend(KERNELS):
        ours = derivatives(lambda *t: tensor_product(*t, problem), tensors, cotangent)
    theirs = derivatives(lambda x, y, w: product._compiled_main_left_right(x, y, w[0]), tensors, cotangent)
    for a, b, bound in ((ours[:1], theirs[:1], 1e-12), (ours[1], theirs[1], 1e-12), (ours[2], theirs[2], 1e-10)):
        assert all(relative_error(p, q) < bound for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("repeats", [False, True], ids=["different", "repeated"])
def test_finite_differences_with_scalar_attributes(repeats):
    """Their second derivatives are computed together: gradcheck and gradgradcheck."""
    problem = of_module(o3.FullyConnectedTensorProduct("2x0e+1x1o", "2x0e", "2x0e+1x1o+1x0e"))
    tensors = inputs(problem, (9, 9, 1))
    if repeats:
        with torch.no_grad():
            tensors[1][2:] = tensors[1][0]
    with use_backend(KERNELS):
        assert torch.autograd.gradcheck(lambda *t: tensor_product(*t, problem), tensors)
        assert torch.autograd.gradgradcheck(lambda *t: tensor_product(*t, problem), tensors)


@pytest.mark.parametrize("variables", ["x", "y", "w", "xy", "xw", "yw"])
@pytest.mark.parametrize("rows", [(40, 40, 1), (40, 1, 1), (1, 40, 1), (40, 40, 40), (1, 40, 40)], ids=str)
def test_derivatives_in_some_variables(variables, rows):
    """What is not differentiated is left out, in the first derivatives and in the second."""
    problem = of_module(o3.FullyConnectedTensorProduct("5x0e+3x1o", "4x0e", "8x0e+3x1o"))
    tensors = [t.detach() for t in inputs(problem, rows)]
    cotangent = torch.randn(40, problem.dim_out, dtype=torch.float64)
    results = []
    for backend in (KERNELS, "reference"):
        leaves = [t.clone().requires_grad_(name in variables) for name, t in zip("xyw", tensors, strict=True)]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        with use_backend(backend):
            value = (tensor_product(*leaves, problem).sin() * cotangent).sum()
            first = torch.autograd.grad(value, wanted, create_graph=True)
            second = torch.autograd.grad(sum(g.square().sum() for g in first), wanted)
        results.append([*first, *second])
    assert all(relative_error(a, b) < 1e-12 for a, b in zip(*results, strict=True))


def test_forces_leave_the_weights_out(monkeypatch):
    """A backward pass that ends at the features does not compute the gradient of the parameters."""
    operator = importlib.import_module("nequip_fast.ops.tensor_product")._product[KERNELS]
    problem, _ = one_path("uvw", (1, 1, 2))
    x, y, w = inputs(problem, (4, 4, 1))
    gradient, asked = operator.product_gradient, []
    monkeypatch.setattr(operator, "product_gradient", lambda *a: (asked.append(tuple(a[-3:])), gradient(*a))[1])
    with use_backend(KERNELS):
        for variables in ((x,), (w,), (x, y, w)):
            torch.autograd.grad(tensor_product(x * 1, y * 1, w * 1, problem).sum(), variables)
        tensor_product(x * 1, y * 1, w, problem).sum().backward()
    assert asked == [(True, True, False), (True, True, True), (True, True, True), (True, True, True)]
    assert w.grad is not None


@pytest.mark.skipif(KERNELS != "cpu", reason="it is about the compiled kernels")
def test_repeated_rows_cost_less():
    """Equal rows of y must be found: a batch of one type is many times faster than one of as many types as samples."""
    problem = of_module(o3.FullyConnectedTensorProduct("64x0e+64x1o", "32x0e", "64x0e+64x1o"))
    x, y, w = (t.detach() for t in inputs(problem, (512, 512, 1), torch.float32))

    def seconds(attributes):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            tensor_product(x, attributes, w, problem)
            times.append(time.perf_counter() - start)
        return min(times)

    assert 4 * seconds(y[:1].expand(512, -1).contiguous()) < seconds(y)


def test_non_contiguous_inputs_and_cotangents():
    """Transposed, strided and expanded tensors give what their contiguous copies give."""
    problem, _ = one_path("uvw", (1, 1, 2))
    tensors = [t.detach() for t in inputs(problem, (20, 20, 1))]
    strided = [torch.stack([t, t], dim=-1)[..., 0].requires_grad_() for t in tensors]
    assert not any(t.is_contiguous() for t in strided)
    plain = [t.clone().requires_grad_() for t in tensors]
    with use_backend(KERNELS):
        for some in (strided, plain):
            tensor_product(*some, problem).sum().backward()  # the cotangent of sum() is an expanded scalar
    for a, b in zip(strided, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_uncovered_columns_are_zero():
    """Irreps of the output, and inputs and weights, that no path uses are zero, not whatever memory held."""
    path = ProductPath("uvu", 1, 1, 1, 3, 2, 3, 3, 3, 6, 3, 1.0)
    problem = ProductProblem([path], 14, 10, 13, 14)
    for rows in ((20, 20, 20), (20, 20, 1), (1, 20, 20)):
        tensors = inputs(problem, rows)
        poison = [torch.full((20, 14), float("nan"), dtype=torch.float64) for _ in range(8)]
        del poison
        with use_backend(KERNELS):
            out = tensor_product(*tensors, problem)
            dx, dy, dw = torch.autograd.grad(out.sum(), tensors)
        for tensor, start, stop in ((out, 3, 12), (dx, 3, 12), (dy, 3, 9), (dw, 6, 12)):
            assert not tensor[:, :start].any()
            assert not tensor[:, stop:].any()
            assert tensor[:, start:stop].all()


def test_bit_identical_runs(isa):
    """Same bits twice for a given number of threads, and the same product with any."""
    problem, rows = of_module(MODULES["self_connection"]()), 1500 if KERNELS == "cpu" else 70
    x, y, w = inputs(problem, (rows, rows, 1), torch.float32)
    repeated = with_repeats([x, y, w])[1]
    cotangent = torch.randn(rows, problem.dim_out)
    for attributes in (y, repeated):
        results = []
        for threads in (2, 2, 1):
            torch.set_num_threads(threads)
            out = tensor_product(x, attributes, w, problem)
            results.append([out, *torch.autograd.grad(out, (x, attributes, w), cotangent)])
        assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
        assert all(relative_error(a, b) < 1e-6 for a, b in zip(results[0], results[2], strict=True))


@too_large
def test_offsets_beyond_int32():
    """More than 2³¹ weights; only those of the last sample are not zero."""
    mul, batch = 2**20, 2**11 + 8
    problem = ProductProblem([ProductPath("uvu", 0, 0, 0, mul, 1, mul, 0, 0, 0, 0, 1.0)], mul, 1, mul, mul)
    w = torch.from_numpy(np.zeros((batch, mul), np.float32))  # numpy's zeros cost no memory until they are written to
    assert w.numel() > 2**31
    w[-1] = 2.0
    x = torch.ones(1, mul)
    problem = ProductProblem([ProductPath("uuw", 0, 0, 0, mul, mul, 1, 0, 0, 0, 0, 1.0)], mul, mul, mul, 1)
    with torch.no_grad(), use_backend(KERNELS):
        out = tensor_product(x, x, w, problem)
    assert not out[:-1].any()
    assert float(out[-1]) == 2.0 * mul


# --- torch's own requirements ---


def test_opcheck(traced_module):
    """Schema, fake kernels, autograd registration and symbolic tracing of all four operators."""
    _, problem = traced_module
    x, y, w = inputs(problem, (5, 5, 1))
    g = torch.randn(5, problem.dim_out, dtype=torch.float64, requires_grad=True)
    opcheck = torch.library.opcheck
    dx, dy, dw = inputs(problem, (5, 5, 1))
    opcheck(operator("tensor_product"), (x, y, w, problem.text))
    for direction in ((dx, dy, dw), (None, dy, None)):
        opcheck(operator("tensor_product_tangent"), (x, y, w, *direction, problem.text))
        for want in ((True, True, True), (True, False, False)):
            opcheck(operator("tensor_product_gradient"), (x, y, w, g, problem.text, *want))
            opcheck(operator("tensor_product_gradient_tangent"), (x, y, w, g, *direction, problem.text, *want))


def force_like(problem: ProductProblem):
    """A function that differentiates inside, as a force field does."""

    def function(x, y, w):
        energy = tensor_product(x, y, w, problem).square().sum()
        return torch.autograd.grad(energy, (x, y), create_graph=True)

    return function


def test_make_fx_with_dynamic_shapes(traced_module):
    """Traced once symbolically, right for other sizes."""
    _, problem = traced_module
    function = force_like(problem)
    example = inputs(problem, (31, 31, 1))  # as many rows as no operand has columns: equal sizes become one symbol
    traced = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    other = inputs(problem, (9, 9, 1))
    for a, b in zip(traced(*other), function(*other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_compile_fullgraph_dynamic():
    """torch.compile without graph breaks, for changing sizes, gradients included."""
    problem, _ = one_path("uvw", (1, 1, 2))

    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def compiled(x, y, w):
        return tensor_product(x, y, w, problem).square().sum()

    for batch in (5, 8):
        tensors = inputs(problem, (batch, batch, 1))
        grads = torch.autograd.grad(compiled(*tensors), tensors)
        expected = torch.autograd.grad(tensor_product_reference(*tensors, problem).square().sum(), tensors)
        assert all(relative_error(a, b) < 1e-12 for a, b in zip(grads, expected, strict=True))


def test_export():
    """torch.export keeps the operator as one node, for any batch."""
    problem, _ = one_path("uvw", (1, 1, 2))

    class Module(torch.nn.Module):
        def forward(self, x, y, w):
            return tensor_product(x, y, w, problem)

    arguments = tuple(t.detach() for t in inputs(problem, (5, 5, 1)))
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(Module(), arguments, dynamic_shapes=({0: batch}, {0: batch}, None))
    assert "tensor_product" in str(exported.graph)
    other = tuple(t.detach() for t in inputs(problem, (7, 7, 1)))
    torch.testing.assert_close(exported.module()(*other), Module()(*other))


@pytest.mark.parametrize(
    ("rows", "in_dims"),
    [
        ((4, 4, 1), (0, 0, None)), ((4, 4, 1), (0, None, 0)), ((4, 4, 4), (None, 0, 0)), ((1, 4, 1), (0, 0, None)),
        ((4, 1, 1), (None, 0, None)), ((1, 1, 1), (0, 0, None)), ((1, 1, 1), (0, None, 0)), ((4, 4, 4), (1, 2, 0)),
    ][:: 1 if KERNELS == "cpu" else 3],  # the rules are the same for all kernels
    ids=str,
)  # fmt: skip
def test_vmap(rows, in_dims):
    """Mapped over any operands, product and gradients are those of each slice."""
    problem, _ = one_path("uvw", (1, 1, 2))
    size, tensors = 3, []
    for t, dim in zip(inputs(problem, rows), in_dims, strict=True):
        tensors.append(t.detach() if dim is None else torch.randn(size, *t.shape, dtype=t.dtype).movedim(0, dim))

    def product(x, y, w):
        return tensor_product(x, y, w, problem)

    def gradients(x, y, w):
        return torch.func.grad(lambda *t: product(*t).square().sum(), argnums=(0, 1, 2))(x, y, w)

    def hessian_product(x, y, w):
        return torch.func.grad(lambda *t: sum(g.sin().sum() for g in gradients(*t)), argnums=(0, 1, 2))(x, y, w)

    functions = [product, gradients, lambda *t: gradients(*t)[0], lambda *t: gradients(*t)[2], hessian_product]
    for function in functions:
        with use_backend(KERNELS):
            mapped = pytree.tree_leaves(torch.func.vmap(function, in_dims)(*tensors))
        for k in range(size):
            slices = (t if dim is None else t.select(dim, k) for t, dim in zip(tensors, in_dims, strict=True))
            with use_backend("reference"):
                one = pytree.tree_leaves(function(*slices))
            for a, b in zip(mapped, one, strict=True):
                torch.testing.assert_close(a[k], b, rtol=1e-11, atol=1e-11)


def test_jacobians():
    """Batched cotangents, and torch.func's reverse mode, give the Jacobian of the definition."""
    problem, _ = one_path("uvw", (1, 1, 2), muls=(2, 1, 2))
    tensors = tuple(inputs(problem, (3, 3, 1)))
    with use_backend(KERNELS):
        batched = torch.autograd.functional.jacobian(lambda *t: tensor_product(*t, problem), tensors, vectorize=True)
        reverse = torch.func.jacrev(lambda *t: tensor_product(*t, problem), argnums=(0, 1, 2))(*tensors)
    expected = torch.autograd.functional.jacobian(lambda *t: tensor_product_reference(*t, problem), tensors)
    for a, b, c in zip(batched, reverse, expected, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(b, c, rtol=1e-12, atol=1e-12)


# --- bad input: one sentence each ---


def test_wrong_shapes_and_dtypes_are_named():
    """The message says which tensor, what it must be and what it is."""
    problem, _ = one_path("uvw", (1, 1, 2))
    x, y, w = (t.detach() for t in inputs(problem))
    with pytest.raises(InputError, match=r"y must be \[4 or 1, 15\], got \[3, 15\]"):
        tensor_product(x, y[1:], w, problem)
    with pytest.raises(InputError, match=r"w must be \[4 or 1, 105\], got \[105\]"):
        tensor_product(x, y, w[0], problem)
    with pytest.raises(InputError, match=r"w is torch\.float32 .* but x torch\.float64"):
        tensor_product(x, y, w.float(), problem)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "uvx"}, "unknown mode 'uvx'"),
        ({"l3": 4}, "degrees 1 and 1 do not couple to 4"),
        ({"mul3": 4}, "gives 5 channels, not 4"),
        ({"mode": "uuu", "mul2": 4}, "as many channels in y as in x"),
        ({"mode": "uvw", "w": -1}, "needs weights"),
        ({"w": 1}, "outside the 15 columns of w"),
        ({"x": 1}, "outside the 15 columns of x"),
    ],
)
def test_paths_that_do_not_fit(changes, message):
    """A path is checked when the problem is made."""
    path = ProductPath("uvu", 1, 1, 1, 5, 3, 5, 0, 0, 0, 0, 1.0)
    ProductProblem([path], 15, 9, 15, 15)
    with pytest.raises(InputError, match=message):
        ProductProblem([path._replace(**changes)], 15, 9, 15, 15)


def test_paths_that_share_weights():
    """Each path has weights of its own: the gradient of a shared block would need another sum."""
    path = ProductPath("uvu", 1, 1, 1, 5, 3, 5, 0, 0, 0, 0, 1.0)
    ProductProblem([path._replace(w=15), path], 15, 9, 30, 15)
    with pytest.raises(InputError, match="share the weights from column 14"):
        ProductProblem([path._replace(w=14), path], 15, 9, 30, 15)


@pytest.mark.skipif(KERNELS != "cpu", reason="it is about the compiled operator's own check")
def test_kernels_refuse_paths_outside_the_rows():
    """The compiled operator checks its path table itself: a wrong one must not read past a row."""
    x, y, w = torch.randn(3, 4), torch.randn(3, 2), torch.randn(1, 8)
    good = [1, 0, 0, 0, 4, 2, 4, 0, 0, 0, 0, 1.0]  # uvu

    def product(*paths):
        return torch.ops.nequip_fast.tensor_product(x, y, w, describe((4, 2, 8, 4), paths))

    product(good)
    for position, value in ((0, 8), (0, -1), (1, 1), (1, -1), (4, 5), (5, 0), (6, 3), (7, 1), (8, -1), (9, 1), (10, 1)):
        bad = [*good[:position], value, *good[position + 1 :]]
        with pytest.raises(RuntimeError, match=r"does not fit|unknown mode"):
            product(bad)
    with pytest.raises(RuntimeError, match="paths overlap"):
        product(good, good)
    with pytest.raises(RuntimeError, match="x must have 5 columns"):
        torch.ops.nequip_fast.tensor_product(x, y, w, describe((5, 2, 8, 4), [good]))


@pytest.mark.parametrize("rows", [(4, 4, 1), (4, 4, 4)], ids=str)
def test_a_path_without_pairs_beside_another(rows):
    """'u<vw' of one channel has no weights; the next path's begin at the same column."""
    paths = [
        ProductPath("u<vw", 1, 1, 2, 1, 1, 2, 0, 0, 0, 0, 1.0),
        ProductPath("uvw", 1, 1, 2, 1, 1, 2, 0, 0, 0, 0, 1.0),
    ]
    problem = ProductProblem(paths, 3, 3, 2, 10)
    tensors = inputs(problem, rows)
    results = []
    for name in (KERNELS, "reference"):
        with use_backend(name):
            value = tensor_product(*tensors, problem)
            results.append([value, *torch.autograd.grad(value.sin().sum(), tensors)])
    assert all(relative_error(a, b) < 1e-13 for a, b in zip(*results, strict=True))
