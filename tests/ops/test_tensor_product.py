"""The tensor product: against e3nn mode by mode, its derivatives, its edge cases, and its place in torch."""

import pytest
import torch
from e3nn import o3

from nequip_fast.errors import InputError
from nequip_fast.ops import ProductPath, ProductProblem, tensor_product, use_backend
from nequip_fast.ops.product_paths import MODES
from nequip_fast.ops.tensor_product import tensor_product_reference
from tests.helpers import TRIPLES, relative_error

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
    with_dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # an oracle built in float32 keeps float32 Clebsch-Gordan constants
    try:
        oracle = o3.TensorProduct(
            *irreps, [instruction], irrep_normalization="none", path_normalization="none", internal_weights=False,
            shared_weights=False,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(with_dtype)
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
    with use_backend("cpu"):
        ours = derivatives(lambda x, y, w: tensor_product(x, y, w, problem), tensors, cotangent)
    theirs = derivatives(lambda *t: oracle(*(a.expand(batch, -1) for a in t)), tensors, cotangent)
    assert relative_error(ours[0], theirs[0]) < 1e-12
    assert all(relative_error(a, b) < 1e-12 for a, b in zip(ours[1], theirs[1], strict=True))
    assert all(relative_error(a, b) < 1e-10 for a, b in zip(ours[2], theirs[2], strict=True))


@pytest.mark.parametrize(("mode", "weights"), KINDS)
@pytest.mark.parametrize("degrees", [*TRIPLES, (5, 3, 4), (6, 6, 6), (2, 5, 6)], ids=str)
def test_equals_e3nn(mode, weights, degrees):
    """Every mode, with and without weights, for all compiled degrees and some that are not; a tile and a bit."""
    problem, oracle = one_path(mode, degrees, weights)
    assert_equals_oracle(problem, oracle, (11, 11, 11), 11)


ROWS = [(21, 21, 1), (1, 21, 21), (21, 1, 21), (1, 1, 21), (1, 21, 1), (21, 1, 1), (1, 1, 1), (3, 3, 3), (140, 140, 1)]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize(("mode", "weights"), KINDS)
@pytest.mark.parametrize("degrees", [(2, 1, 2), (1, 6, 5)], ids=str)
def test_shared_rows(mode, weights, degrees, rows, isa):
    """One row stands for all and its gradient is a sum over them, with every instruction set."""
    problem, oracle = one_path(mode, degrees, weights)
    assert_equals_oracle(problem, oracle, rows, max(rows))


@pytest.mark.parametrize("rows", [(0, 0, 0), (0, 1, 0), (1, 0, 1), (0, 0, 1)], ids=str)
def test_no_samples(rows):
    """An empty batch gives an empty product, and a gradient of zero to what would have been shared."""
    problem, _ = one_path("uvw", (1, 1, 2))
    tensors = inputs(problem, rows)
    with use_backend("cpu"):
        out = tensor_product(*tensors, problem)
        first = torch.autograd.grad(out.sum(), tensors, create_graph=True)
        torch.autograd.grad(sum((g**2).sum() for g in first), tensors, allow_unused=True)
    assert out.shape == (0, problem.dim_out)
    assert [g.shape for g in first] == [t.shape for t in tensors]
    assert not any(g.any() for g in first)


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


def test_kernels_refuse_paths_outside_the_rows():
    """The compiled operator checks its path table itself: a wrong one must not read past a row."""
    x, y, w = torch.randn(3, 4), torch.randn(3, 2), torch.randn(1, 8)
    good = [1, 0, 0, 0, 4, 2, 4, 0, 0, 0, 0]  # uvu
    torch.ops.nequip_fast.tensor_product(x, y, w, good, [1.0], 4)
    for position, value in ((0, 8), (0, -1), (1, 1), (1, -1), (4, 5), (5, 0), (6, 3), (7, 1), (8, -1), (9, 1), (10, 1)):
        bad = [*good[:position], value, *good[position + 1 :]]
        with pytest.raises(RuntimeError, match=r"does not fit|unknown mode"):
            torch.ops.nequip_fast.tensor_product(x, y, w, bad, [1.0], 4)
    with pytest.raises(RuntimeError, match="paths overlap"):
        torch.ops.nequip_fast.tensor_product(x, y, w, good * 2, [1.0] * 2, 4)
