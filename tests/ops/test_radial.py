"""The radial basis: its definition, derivatives, edge cases, and its place in torch."""

import math

import pytest
import torch

from nequip_fast.errors import InputError
from nequip_fast.ops import radial, use_backend
from tests.helpers import KERNELS, operator, relative_error

ROOTS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
CASES = [(ROOTS, 6.0), (ROOTS[:1], 2.0), ([0.7, 1.9, 3.3], 5.0), (ROOTS[:5], 4.5)]


def lengths(count=70):
    """[count, 1], most of them inside the cutoff, one at it."""
    x = torch.linspace(0.02, 1.1, count, dtype=torch.float64)[torch.randperm(count)]
    x[0] = 1.0
    return x.unsqueeze(1).requires_grad_()


def derivatives(x, roots, p, cotangent):
    """Value, first derivative, and second derivatives of a nonlinear scalar of it."""
    value = radial(x, roots, p, 1.7)
    (first,) = torch.autograd.grad(value, x, cotangent, create_graph=True)
    return value, first, *torch.autograd.grad(first.sin().sum(), (x, cotangent))


@pytest.mark.parametrize(("roots", "p"), CASES, ids=str)
def test_equals_the_definition(roots, p):
    """Value, first and second derivatives."""
    x, roots = lengths(), torch.tensor(roots, dtype=torch.float64)
    cotangent = torch.randn(len(x), len(roots), dtype=torch.float64, requires_grad=True)
    results = []
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            results.append(derivatives(x, roots, p, cotangent))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
        assert relative_error(ours, theirs) < 1e-12


def test_values():
    """The formula by hand, at one point and beyond the cutoff."""
    with use_backend(KERNELS):
        x = torch.tensor([[0.4], [1.0], [1.5]], dtype=torch.float64)
        value = radial(x, torch.tensor([2.0], dtype=torch.float64), 6.0, 3.0)
    envelope = 1 - 28 * 0.4**6 + 48 * 0.4**7 - 21 * 0.4**8
    assert float(value[0]) == pytest.approx(3 * math.sin(2 * math.pi * 0.4) / (math.pi * 0.4) * envelope, rel=1e-14)
    assert not value[1:].any()


@pytest.mark.parametrize("p", [2.0, 6.0])
def test_finite_differences(p):
    """gradcheck and gradgradcheck."""
    x = torch.tensor([[0.11], [0.6], [0.97], [1.2]], dtype=torch.float64, requires_grad=True)
    roots = torch.tensor([1.0, 2.5], dtype=torch.float64)
    with use_backend(KERNELS):
        assert torch.autograd.gradcheck(lambda x: radial(x, roots, p), x)
        assert torch.autograd.gradgradcheck(lambda x: radial(x, roots, p), x)


def test_third_derivative():
    """Training on Hessians goes one order further than the kernels."""
    x, roots = lengths(9), torch.tensor(ROOTS, dtype=torch.float64)
    results = []
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            value = radial(x, roots, 6.0).sin().sum()
            for _ in range(3):
                (gradient,) = torch.autograd.grad(value, x, create_graph=True)
                value = gradient.square().sum()
            results.append(gradient)
    assert relative_error(*results) < 1e-10


def test_trained_roots():
    """Roots that are parameters get their gradient."""
    x, roots = lengths(), torch.tensor(ROOTS, dtype=torch.float64, requires_grad=True)
    with use_backend(KERNELS):
        value = radial(x, roots, 6.0)
    k = torch.arange(1, 9, dtype=torch.float64) * math.pi
    envelope = radial(x, torch.tensor([0.5], dtype=torch.float64), 6.0) / torch.sin(x * math.pi / 2)
    expected = (torch.cos(x * k) * x * math.pi * envelope).sum(0)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), roots)[0], expected.detach())


def test_float32_is_a_rounding():
    """Arithmetic in float64, the result and its cotangent in float32."""
    x, roots = lengths(), torch.tensor(ROOTS, dtype=torch.float64)
    with use_backend(KERNELS):
        exact, rounded = radial(x, roots, 6.0), radial(x, roots, 6.0, dtype=torch.float32)
        torch.testing.assert_close(rounded, exact.float(), rtol=0, atol=0)
        cotangent = torch.randn_like(rounded)
        gradients = [torch.autograd.grad(v, x, cotangent.to(v.dtype))[0] for v in (rounded, exact)]
    assert gradients[0].dtype == torch.float64
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 1), (1, 1), (3, 5, 1)], ids=str)
def test_shapes(shape):
    """No edges, one, and more than one leading dimension; strided lengths."""
    roots = torch.tensor(ROOTS, dtype=torch.float64)
    x = torch.rand(*shape, 2, dtype=torch.float64)[..., 0].requires_grad_()
    with use_backend(KERNELS):
        value = radial(x, roots, 6.0)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.shape == (*shape[:-1], 8)
    assert gradient.shape == shape
    with use_backend("reference"):
        torch.testing.assert_close(value, radial(x, roots, 6.0))


def test_what_is_no_number_stays_none():
    """A NaN among the lengths is not hidden by the cutoff."""
    with use_backend(KERNELS):
        value = radial(torch.tensor([[float("nan")]], dtype=torch.float64), torch.ones(1, dtype=torch.float64), 6.0)
    assert value.isnan().all()


def test_opcheck():
    """Schema, fake kernels, autograd registration and symbolic tracing of all three operators."""
    x, roots = lengths(5), torch.tensor(ROOTS, dtype=torch.float64)
    g = torch.randn(5, 8, requires_grad=True)
    c = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    constants = 6.0, 1.0, roots, True
    for suffix, tensors in (("", (x,)), ("_vjp", (x, g)), ("_vjp_grad", (x, g, c))):
        torch.library.opcheck(operator(f"radial{suffix}"), (*tensors, *constants))


def test_vmap():
    """Mapped over lengths, the basis and its derivative are those of each slice."""
    x, roots = torch.rand(3, 4, 1, dtype=torch.float64), torch.tensor(ROOTS, dtype=torch.float64)

    def gradient(x):
        return torch.func.grad(lambda x: radial(x, roots, 6.0).square().sum())(x)

    with use_backend(KERNELS):
        for function in (lambda x: radial(x, roots, 6.0), gradient):
            mapped = torch.func.vmap(function)(x)
            torch.testing.assert_close(mapped, torch.stack([function(one) for one in x]))


def test_bad_input_is_named():
    """One sentence."""
    x, roots = lengths(3), torch.tensor(ROOTS, dtype=torch.float64)
    with pytest.raises(InputError, match=r"x must be \[\.\.\., 1\] and roots \[n\], got \[3\] and \[8\]"):
        radial(x[:, 0], roots, 6.0)
    with pytest.raises(InputError, match=r"got torch\.float32, torch\.float64"):
        radial(x.float(), roots, 6.0)


def test_roots_of_an_ensemble():
    """Mapped over roots: each basis with its own, gradients by the roots included."""
    x = torch.rand(5, 1, dtype=torch.float64)
    roots = torch.tensor([[1.0, 2.0], [1.1, 2.2], [0.9, 3.0]], dtype=torch.float64)
    with use_backend(KERNELS):
        mapped = torch.func.vmap(lambda r: radial(x, r, 6.0))(roots)
        each = torch.stack([radial(x, r, 6.0) for r in roots])
        gradient = torch.func.grad(lambda r: torch.func.vmap(lambda s: radial(x, s, 6.0))(r).sin().sum())(roots)
        expected = torch.func.grad(lambda r: sum(radial(x, s, 6.0).sin().sum() for s in r))(roots)
    torch.testing.assert_close(mapped, each)
    torch.testing.assert_close(gradient, expected)


def test_compiled_gradient_by_the_roots():
    """In one graph, under torch.func as well, whose tensors do not say that they are differentiated by."""
    x, roots = torch.rand(5, 1, dtype=torch.float64) + 0.1, torch.arange(1, 4, dtype=torch.float64)
    gradient = torch.func.grad(lambda roots: radial(x, roots, 6.0).sin().sum())
    torch._dynamo.reset()
    compiled = torch.compile(gradient, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(roots), gradient(roots), rtol=1e-13, atol=0)
