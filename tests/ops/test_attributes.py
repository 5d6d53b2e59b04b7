"""Products with rows of a table: every derivative against the definition and finite differences, e3nn, transforms."""

import pytest
import torch
from e3nn import o3 as e3nn_o3

from nequip_fast import o3
from nequip_fast.errors import InputError
from nequip_fast.ops import ProductPath, ProductProblem, product_with_rows, tensor_product, use_backend
from tests.helpers import relative_error

PRODUCTS = {  # irreps of x, number of attributes, irreps of the output
    "as presets have": ("32x0e+32x1o+32x2e", 32, "96x0e+32x1o+32x2e"),
    "odd": ("7x0e+5x1e+3x0o+1x3o", 9, "13x0e+17x1e+4x0o+2x3o"),
    "one channel each": ("0e+1o", 1, "0e+1o"),
    "beyond compiled degrees": ("3x5e", 4, "18x5e"),
}
SIZES = [(0, 0), (0, 2), (1, 1), (1, 3), (5, 2), (75, 2), (150, 7)]  # samples, rows


def operands(module, samples, rows, dtype=torch.float64):
    """x, table, w, a cotangent of the value, and row, which leaves out the last row of the table if it has several."""
    shapes = (samples, module.irreps_in1.dim), (rows, module.irreps_in2.dim), (module.weight_numel,)
    x, table, w = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    row = torch.randint(0, max(rows - 1, 1), (samples,))
    return x, table, w, torch.randn(samples, module.irreps_out.dim, dtype=dtype, requires_grad=True), row


def product(irreps_in, attributes, irreps_out):
    return o3.FullyConnectedTensorProduct(irreps_in, f"{attributes}x0e", irreps_out, internal_weights=True)


def derivatives(call, x, table, w, g):
    """The value, its gradients, and the gradients of each of these."""
    out = call(x, table, w)
    first = torch.autograd.grad(out, (x, table, w), g, create_graph=True)
    results = [out, *first]
    for gradient in first:
        c = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1)).to(gradient)
        results += torch.autograd.grad(
            gradient, (x, table, w, g), c, allow_unused=True, materialize_grads=True, retain_graph=True
        )
    return results


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
def test_every_derivative(isa, name, dtype, bound):
    """Each tensor of the first and second by itself, against the product with gathered rows in plain torch."""
    module = product(*PRODUCTS[name])
    for samples, rows in SIZES:
        *tensors, row = operands(module, samples, rows, dtype)
        ours = derivatives(lambda x, t, w, row=row: product_with_rows(x, t, row, w, module.problem), *tensors)
        exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
        with use_backend("reference"):
            theirs = derivatives(lambda x, t, w, row=row: tensor_product(x, t[row], w[None], module.problem), *exact)
        for found, expected in zip(ours, theirs, strict=True):
            assert found.shape == expected.shape
            assert relative_error(found, expected) < bound


def test_columns_that_no_path_names():
    """Outputs, weights and attributes without a path are zero, or have a gradient of zero."""
    paths = [
        ProductPath("uvw", 1, 0, 1, 3, 2, 4, 2, 1, 5, 3, 0.7),
        ProductPath("uvw", 1, 0, 1, 3, 2, 4, 2, 1, 40, 3, 0.3),
    ]
    problem = ProductProblem(paths, 12, 4, 70, 17)
    x, table, w = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((6, 12), (2, 4), (70,)))
    g = torch.randn(6, 17, dtype=torch.float64, requires_grad=True)
    row = torch.tensor([0, 1, 1, 0, 0, 1])
    ours = derivatives(lambda x, t, w: product_with_rows(x, t, row, w, problem), x, table, w, g)
    theirs = derivatives(lambda x, t, w: tensor_product(x, t[row], w[None], problem), x, table, w, g)
    for found, expected in zip(ours, theirs, strict=True):
        assert relative_error(found, expected) < 1e-13


def test_finite_differences():
    """gradcheck and gradgradcheck by x, the table and the weights."""
    module = product("2x0e+2x1o", 3, "3x0e+1x1o")
    x, table, w, _, row = operands(module, 4, 3)

    def call(x, table, w):
        return product_with_rows(x, table, row, w, module.problem)

    assert torch.autograd.gradcheck(call, (x, table, w))
    assert torch.autograd.gradgradcheck(call, (x, table, w))


def test_third_derivatives():
    """The operators are closed under differentiation."""
    module = product("3x0e+2x1o", 4, "5x0e+2x1o")
    x, table, w, _, row = operands(module, 6, 2)

    def results(call):
        value, found = call(x, table, w).sin().sum(), []
        for _ in range(3):
            gradients = torch.autograd.grad(value, (x, table, w), create_graph=True)
            found += gradients
            value = sum(gradient.square().sum() for gradient in gradients) / 100
        return found

    ours = results(lambda x, t, w: product_with_rows(x, t, row, w, module.problem))
    theirs = results(lambda x, t, w: tensor_product(x, t[row], w[None], module.problem))
    for found, expected in zip(ours, theirs, strict=True):
        assert relative_error(found, expected) < 1e-12


def test_equals_e3nn():
    """The module, with rows and without, is e3nn's."""
    torch.set_default_dtype(torch.float64)
    irreps = "8x0e+4x1o", "5x0e", "6x0e+4x1o"
    theirs, ours = e3nn_o3.FullyConnectedTensorProduct(*irreps), o3.FullyConnectedTensorProduct(*irreps)
    ours.load_state_dict(theirs.state_dict())
    x, table, row = torch.randn(30, 20), torch.randn(3, 5), torch.randint(0, 3, (30,))
    assert relative_error(ours.with_rows(x, table, row), theirs(x, table[row])) < 1e-14
    given = o3.FullyConnectedTensorProduct(*irreps, internal_weights=False, shared_weights=False)
    with pytest.raises(InputError, match="no internal weights"):
        given.with_rows(x, table, row)
    without_paths = o3.FullyConnectedTensorProduct("8x0e+4x1o", "5x0e", "2x3o")
    assert torch.equal(without_paths.with_rows(x, table, row), torch.zeros(30, 14))


def test_attributes_with_degrees_are_gathered():
    """What has no contraction is the product all the same."""
    module = o3.FullyConnectedTensorProduct("3x0e+2x1o", "2x0e+1x1o", "4x0e+2x1o")
    x, table, row = torch.randn(7, 9), torch.randn(2, 5), torch.randint(0, 2, (7,))
    assert torch.equal(module.with_rows(x, table, row), module(x, table[row]))


def test_forces_leave_the_weights_out():
    """Where energies are differentiated by x alone no weight is, and the table's rows are contracted once a step."""
    module = product("8x0e+8x1o", 8, "16x0e+8x1o")
    x, table, w, _, row = operands(module, 20, 2)
    with torch.profiler.profile() as profile:
        out = product_with_rows(x * 1.5, table, row, w, module.problem)
        (force,) = torch.autograd.grad(out.sin().sum(), x, create_graph=True)
        force.square().sum().backward()
    counts = [event.name for event in profile.events()]
    calls = {
        name: counts.count(f"nequip_fast::{name}") for name in ("contract_attributes", "contract_attributes_gradient")
    }
    assert calls == {"contract_attributes": 1, "contract_attributes_gradient": 1}
    assert counts.count("nequip_fast::mix_by_row") == 2
    assert w.grad.abs().sum() > 0
    assert table.grad.abs().sum() > 0


def test_transforms():
    """opcheck; one graph for any number of samples; vmap; torch.func; strides."""
    module = product("4x0e+3x1o", 5, "6x0e+3x1o")
    x, table, w, g, row = operands(module, 5, 3)
    text, ops = module.problem.text, torch.ops.nequip_fast
    contracted = ops.contract_attributes(table, w, text).detach().requires_grad_()
    torch.library.opcheck(ops.contract_attributes, (table, w, text))
    torch.library.opcheck(ops.contract_attributes_gradient, (table, w, contracted, text, True, True))
    torch.library.opcheck(ops.mix_by_row, (x, contracted, row, text))
    torch.library.opcheck(ops.mix_by_row_gradient, (x, contracted, g, row, text, True, True))

    def call(x, table=table, w=w):
        return product_with_rows(x, table, row[: x.shape[0]], w, module.problem)

    compiled = torch.compile(lambda v: call(v).sin(), fullgraph=True, dynamic=True, backend="aot_eager")
    for samples in (3, 5):
        v = x[:samples].detach().requires_grad_()
        (ours,) = torch.autograd.grad(compiled(v).sum(), v)
        assert torch.equal(ours, torch.autograd.grad(call(v).sin().sum(), v)[0])
    several = torch.randn(2, *x.shape, dtype=x.dtype)
    assert torch.equal(torch.vmap(call)(several), torch.stack([call(v) for v in several]))
    exact = torch.autograd.grad(call(x), (x, table, w), g)
    found = torch.func.grad(lambda *at: (call(*at) * g).sum(), argnums=(0, 1, 2))(x, table, w)
    for ours, expected in zip(found, exact, strict=True):
        assert relative_error(ours, expected) < 1e-14
    assert torch.equal(call(x.T.contiguous().T), call(x))


def test_threads_and_repeats():
    """The same bits twice; sums over threads to rounding."""
    module = product("64x0e+64x1o", 64, "128x0e+64x1o")
    *tensors, row = operands(module, 300, 3)
    results = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        results.append(derivatives(lambda x, t, w: product_with_rows(x, t, row, w, module.problem), *tensors))
    assert all(torch.equal(a, b) for a, b in zip(*results[1:], strict=True))
    for one, two in zip(*results[:2], strict=True):
        assert relative_error(two, one) < 1e-14


def test_bad_input_is_named():
    """One sentence each."""
    module = product("2x0e", 3, "4x0e")
    x, table, w, _, row = operands(module, 5, 2)
    problem, ops = module.problem, torch.ops.nequip_fast
    for wrong in ((x[:, :1], table, row, w), (x, table[:, :2], row, w), (x, table, row[:4], w), (x, table, row, w[:3])):
        with pytest.raises(
            InputError, match=r"expected x \[B, 2\], table \[rows, 3\], row \[B\] int64 and w \[24\], got"
        ):
            product_with_rows(*wrong, problem)
    with pytest.raises(InputError, match="int32"):
        product_with_rows(x, table, row.int(), w, problem)
    with pytest.raises(InputError, match=r"y is torch.float32"):
        product_with_rows(x, table.float(), row, w, problem)
    with pytest.raises(RuntimeError, match=r"row names something outside 0 … 1"):
        product_with_rows(x, table, row + 2, w, problem)
    with pytest.raises(RuntimeError, match=r"w must be a CPU tensor \[24\] of the dtype of table"):
        ops.contract_attributes(table, w.float(), problem.text)
    with pytest.raises(RuntimeError, match="w must have 8 columns"):
        ops.mix_by_row(x, table, row, problem.text)
    with pytest.raises(RuntimeError, match="g must have 4 columns"):
        ops.mix_by_row_gradient(x, table.new_zeros(2, 8), x, row, problem.text, True, True)
    with pytest.raises(RuntimeError, match="g must be a CPU tensor of 2 rows"):
        ops.contract_attributes_gradient(table, w, table.new_zeros(3, 8), problem.text, True, True)
    vectors = ProductProblem([ProductPath("uvw", 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1.0)], 3, 3, 1, 1)
    with pytest.raises(RuntimeError, match="every path must be 'uvw' and y hold scalars alone"):
        ops.contract_attributes(table.new_zeros(2, 3), table.new_zeros(1), vectors.text)
