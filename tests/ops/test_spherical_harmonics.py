"""Spherical harmonics: against e3nn and sphericart to l = 11, derivatives to third order, odd inputs, transforms."""

import pytest
import torch
from e3nn import o3 as e3nn_o3

from nequip_fast import o3
from nequip_fast.errors import InputError
from nequip_fast.ops import spherical_harmonics, use_backend
from tests.helpers import KERNELS, operator, relative_error

NORMALIZATIONS = ["component", "norm", "integral"]
DEGREES = [[1], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5], [3, 1, 1, 0, 4], [2, 2], [7]]
DEGREES += [[1] * 20]  # more runs of columns than one launch of a CUDA kernel takes


def vectors(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, 3, dtype=dtype)


def derivatives(
    r: torch.Tensor, g: torch.Tensor, c: torch.Tensor, *problem: object
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Y, its gradient with cotangent g, and the gradients of that with cotangent c."""
    y = spherical_harmonics(r, *problem)
    (first,) = torch.autograd.grad(y, r, g, create_graph=True)
    second = torch.autograd.grad(first, (r, g), c, allow_unused=True, materialize_grads=True)
    return y, first, *second


def operands(degrees: list[int], count: int = 7, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Vectors, cotangents of the harmonics and of the gradient."""
    shapes = (count, 3), (count, sum(2 * l + 1 for l in degrees)), (count, 3)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


# --- the same numbers as others ---


@pytest.mark.parametrize("backend", [KERNELS, "reference"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("l_max", range(12))
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_e3nn(l_max, normalize, normalization, backend):
    """Values and gradients to 1e-12 of the largest in float64."""
    r = vectors(37).requires_grad_()
    cotangent = torch.randn(37, (l_max + 1) ** 2, dtype=torch.float64)
    theirs = e3nn_o3.spherical_harmonics(list(range(l_max + 1)), r, normalize, normalization)
    with use_backend(backend):
        ours = spherical_harmonics(r, l_max, normalize, normalization)
        assert relative_error(ours, theirs) < 1e-12
        if l_max == 0:  # a constant, of which e3nn has no gradient
            return
        gradient = torch.autograd.grad(ours, r, cotangent)[0]
    assert relative_error(gradient, torch.autograd.grad(theirs, r, cotangent)[0]) < 1e-12


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("l_max", range(1, 12))
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_sphericart(l_max, normalize, normalization):
    """The same of sphericart, under its own e3nn interface."""
    sphericart = pytest.importorskip("sphericart.torch", reason="sphericart-torch is not installed")
    r = vectors(37).requires_grad_()
    cotangent = torch.randn(37, (l_max + 1) ** 2, dtype=torch.float64)
    theirs = sphericart.e3nn_spherical_harmonics(list(range(l_max + 1)), r, normalize, normalization)
    ours = spherical_harmonics(r, l_max, normalize, normalization)
    assert relative_error(ours, theirs) < 1e-12
    gradients = [torch.autograd.grad(y, r, cotangent)[0] for y in (ours, theirs)]
    assert relative_error(*gradients) < 1e-12


@pytest.mark.parametrize("degrees", DEGREES, ids=str)
@pytest.mark.parametrize("normalize", [True, False])
def test_every_instruction_set(isa, degrees, normalize):
    """Each set of kernels, both dtypes, any degrees; numbers of rows that fill no vector, one, and a part of one."""
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        for count in (1, 16, 43):
            r, g, c = operands(degrees, count, dtype)
            with torch.no_grad():  # no vector so short that float32 cannot tell its direction
                r += r.sign() / 2
            results = []
            for backend in (KERNELS, "reference"):
                with use_backend(backend):
                    results.append(derivatives(r, g, c, degrees, normalize, "norm"))
            for ours, theirs in zip(*results, strict=True):
                assert relative_error(ours, theirs) < bound


def test_float32_is_as_exact_as_e3nn():
    """Not further from float64 than twice e3nn's own rounding, to l = 11."""
    r = vectors(1000)
    exact = spherical_harmonics(r, 11)
    ours = relative_error(spherical_harmonics(r.float(), 11), exact)
    theirs = relative_error(e3nn_o3.spherical_harmonics(list(range(12)), r.float(), True, "component"), exact)
    assert ours < 2 * theirs < 1e-5


# --- derivatives ---


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("degrees", [[0], [0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4], [11], [3, 1, 1]], ids=str)
def test_finite_differences(degrees, normalize):
    """gradcheck and gradgradcheck of the compiled operators."""
    r = (vectors(2) * 0.7).requires_grad_()
    with use_backend(KERNELS):
        assert torch.autograd.gradcheck(lambda v: spherical_harmonics(v, degrees, normalize, "norm"), r)
        assert torch.autograd.gradgradcheck(lambda v: spherical_harmonics(v, degrees, normalize, "norm"), r)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("degrees", [[1], [0, 1, 2, 3], [4, 2]], ids=str)
def test_third_and_fourth_derivative(degrees, normalize):
    """They leave the kernels for plain torch, and are right all the same."""
    r = torch.nn.functional.normalize(vectors(5)).requires_grad_()
    results = []
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            value = spherical_harmonics(r, degrees, normalize).sin().sum()
            for _ in range(4):
                (gradient,) = torch.autograd.grad(value, r, create_graph=True)
                value = gradient.square().sum() / 100
                results.append(gradient)
    for ours, theirs in zip(results[:4], results[4:], strict=True):
        assert relative_error(ours, theirs) < 1e-12


def test_second_derivative_alone_may_be_wanted():
    """Gradients with respect to the cotangent only, or to the vectors only, are those of both."""
    for wanted in (0, 1):
        r, g, c = operands([0, 1, 2])
        g.requires_grad_(wanted == 1)
        (first,) = torch.autograd.grad(spherical_harmonics(r, 2), r, g, create_graph=True)
        (alone,) = torch.autograd.grad(first, (r, g)[wanted], c)
        assert torch.equal(alone, derivatives(r, g.requires_grad_(), c, 2)[2 + wanted])


# --- odd inputs ---


def test_no_vectors_and_strides(isa):
    """No vectors; leading dimensions; strides do not matter, of vectors or of cotangents."""
    for shape in ((0, 3), (2, 0, 3)):
        r = torch.zeros(shape, requires_grad=True)
        y = spherical_harmonics(r, 2)
        assert y.shape == (*shape[:-1], 9)
        y.sum().backward()
        assert r.grad is not None
        assert r.grad.shape == shape
    r, g, c = operands([0, 1, 2, 3], 24)
    expected = derivatives(r, g, c, 3)
    for got, wanted in zip(derivatives(*(t.T.contiguous().T for t in (r, g, c)), 3), expected, strict=True):
        assert torch.equal(got, wanted)
    batched = derivatives(*(t.detach().reshape(4, 6, -1).requires_grad_() for t in (r, g, c)), 3)
    for got, wanted in zip(batched, expected, strict=True):
        assert torch.equal(got.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-13, 1e-11, 1e-3, 1e3, 1e12])
def test_short_and_long_vectors(isa, length, dtype):
    """As e3nn at every length, gradients too: below 1e-12 a vector is divided by 1e-12 and no longer normalised."""
    r = (vectors(20, dtype) * length).requires_grad_()
    cotangent = torch.randn(20, 16, dtype=dtype)
    ours = spherical_harmonics(r, 3)
    theirs = e3nn_o3.spherical_harmonics([0, 1, 2, 3], r, True, "component")
    gradients = [torch.autograd.grad(y, r, cotangent)[0] for y in (ours, theirs)]
    bound = 1e-12 if dtype == torch.float64 else 2e-6
    assert relative_error(ours, theirs) < bound
    assert torch.isfinite(gradients[0]).all()
    assert relative_error(*gradients) < 10 * bound


def test_zero_vector():
    """Y_0 = 1 and nothing else."""
    with use_backend(KERNELS):
        zero = spherical_harmonics(torch.zeros(1, 3, dtype=torch.float64), 2)
    assert torch.equal(zero[0], torch.eye(9, dtype=torch.float64)[0])


@pytest.mark.parametrize(("dtype", "length"), [(torch.float32, 1e30), (torch.float64, 1e200)])
def test_vectors_whose_square_overflows(isa, dtype, length):
    """They still have a direction."""
    r = vectors(20, dtype)
    bound = 1e-14 if dtype == torch.float64 else 1e-6
    assert relative_error(spherical_harmonics(r * length, 3), spherical_harmonics(r, 3)) < bound


def test_nan_stays_in_its_row():
    """A bad vector spoils its own harmonics only, all of degree above 0."""
    r = vectors(20)
    expected = spherical_harmonics(r, 3)
    r[5, 1] = torch.nan
    got = spherical_harmonics(r, 3)
    assert got[5, 1:].isnan().all()
    rest = torch.arange(20) != 5
    assert torch.equal(got[rest], expected[rest])


def test_rotation_and_inversion():
    """Y(R r) = D(R) Y(r), Y_l(−r) = (−1)^l Y_l(r)."""
    torch.set_default_dtype(torch.float64)  # e3nn builds its rotation matrices in the default dtype
    r, rotation = vectors(9), e3nn_o3.rand_matrix()
    irreps = e3nn_o3.Irreps.spherical_harmonics(7)
    d = irreps.D_from_matrix(rotation)
    assert relative_error(spherical_harmonics(r @ rotation.T, 7), spherical_harmonics(r, 7) @ d.T) < 1e-12
    signs = torch.cat([torch.full((ir.dim,), float((-1) ** ir.l)) for _, ir in irreps])
    assert torch.equal(spherical_harmonics(-r, 7), spherical_harmonics(r, 7) * signs)


def test_threads_change_nothing():
    """Bit for bit the same on one thread and on two."""
    r, g, c = operands([0, 1, 2, 3], 20_011 if KERNELS == "cpu" else 301)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(derivatives(r, g, c, 3))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


# --- torch's transforms ---


@pytest.mark.parametrize("normalize", [True, False])
def test_opcheck(normalize):
    """Schema, fake kernels and autograd of the three operators."""
    problem = [1, 3, 1], "integral", normalize
    tensors = operands(problem[0])
    for count, name in enumerate(
        ("spherical_harmonics", "spherical_harmonics_vjp", "spherical_harmonics_vjp_grad"), start=1
    ):
        torch.library.opcheck(operator(name), (*tensors[:count], *problem))


def test_compile():
    """One graph for any number of vectors, forward and backward."""

    @torch.compile(fullgraph=True, dynamic=True)
    def function(r):
        return spherical_harmonics(r, 3).sin()

    for count in (5, 9):
        r = vectors(count).requires_grad_()
        compiled, eager = function(r), spherical_harmonics(r, 3).sin()
        assert relative_error(compiled, eager) < 1e-12
        gradients = [torch.autograd.grad(y.sum(), r)[0] for y in (compiled, eager)]
        assert relative_error(*gradients) < 1e-12
        with torch.no_grad():
            assert relative_error(function(r), eager) < 1e-12


def test_export():
    """An exported program serves any number of vectors."""
    module = o3.SphericalHarmonics("0e+1o+2e", True)
    count = torch.export.Dim("count", min=2)
    program = torch.export.export(module, (vectors(4),), dynamic_shapes=({0: count},))
    r = vectors(11)
    assert torch.equal(program.module()(r), module(r))


@pytest.mark.parametrize("in_dim", [0, 1])
def test_vmap(in_dim):
    """Over vectors, and over the cotangents of gradients and of second gradients."""
    r, g, c = operands([0, 1, 2, 3])
    stacked = torch.randn(4, 5, 3, dtype=torch.float64)
    batched = torch.vmap(lambda v: spherical_harmonics(v, 3), in_dims=in_dim)
    assert torch.equal(batched(stacked), spherical_harmonics(stacked.movedim(in_dim, 0), 3))
    with torch.no_grad():
        assert torch.equal(batched(stacked), spherical_harmonics(stacked.movedim(in_dim, 0), 3))

    (first,) = torch.autograd.grad(spherical_harmonics(r, 3), r, g, create_graph=True)
    for outputs, inputs, cotangent in ((spherical_harmonics(r, 3), (r,), g), (first, (r, g), c)):
        several = torch.randn(3, *cotangent.shape, dtype=torch.float64)
        together = torch.autograd.grad(outputs, inputs, several, is_grads_batched=True, retain_graph=True)
        for k in range(3):
            one = torch.autograd.grad(outputs, inputs, several[k], retain_graph=True)
            assert all(torch.equal(a[k], b) for a, b in zip(together, one, strict=True))


def test_torch_func():
    """grad, jacrev and hessians by jacrev of them, mapped over vectors."""
    r, c = torch.randn(5, 3, dtype=torch.float64), torch.randn(16, dtype=torch.float64)

    def function(v):
        return (spherical_harmonics(v, 3) * c).sum()

    gradient, hessian = torch.func.grad(function), torch.func.jacrev(torch.func.grad(function))
    assert relative_error(torch.vmap(gradient)(r), gradient(r)) < 1e-12
    expected = torch.autograd.functional.hessian(function, r[0])
    assert relative_error(torch.vmap(hessian)(r)[0], expected) < 1e-12
    third = torch.func.jacrev(hessian)(r[0])
    with use_backend("reference"):
        assert relative_error(third, torch.func.jacrev(hessian)(r[0])) < 1e-12


# --- errors ---


def test_bad_input_is_named():
    """One sentence each."""
    with pytest.raises(InputError, match=r"vectors must be \[..., 3\], got \[4, 2\]"):
        spherical_harmonics(torch.zeros(4, 2), 2)
    with pytest.raises(InputError, match="degrees must be 0 to 11, got 12"):
        spherical_harmonics(torch.zeros(4, 3), 12)
    with pytest.raises(InputError, match=r"degrees must be 0 to 11, got \[\]"):
        spherical_harmonics(torch.zeros(4, 3), [])
    with pytest.raises(InputError, match="did you mean 'component'"):
        spherical_harmonics(torch.zeros(4, 3), 2, normalization="components")
    with pytest.raises(RuntimeError, match=r"g must be a (CPU )?tensor \[..., 3\]"):
        torch.ops.nequip_fast.spherical_harmonics_vjp(torch.zeros(2, 3), torch.zeros(2, 4), [1], "norm", True)
    with pytest.raises(RuntimeError, match="degrees go from 0 to 11, got 12"):
        torch.ops.nequip_fast.spherical_harmonics(torch.zeros(2, 3), [12], "norm", True)


# --- the module ---


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("irreps", ["1o", "0e+1o+2e", "2e+0e+2x1o", "1e+2e", [0, 1, 2, 3], [1, 1], 2])
def test_module_is_a_drop_in(irreps, normalization):
    """o3.SphericalHarmonics and o3.spherical_harmonics: e3nn's arguments, attributes and values."""
    r = torch.randn(2, 5, 3, dtype=torch.float64)
    ours = o3.SphericalHarmonics(irreps, True, normalization)
    theirs = e3nn_o3.SphericalHarmonics(irreps, True, normalization)
    assert ours.irreps_out == theirs.irreps_out
    assert ours.irreps_in == theirs.irreps_in
    torch.testing.assert_close(ours(r), theirs(r), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        o3.spherical_harmonics(irreps, r, False, normalization),
        e3nn_o3.spherical_harmonics(irreps, r, False, normalization), rtol=1e-12, atol=1e-12,
    )  # fmt: skip


def test_module_refuses_wrong_parity():
    """2o is no spherical harmonic of a polar vector."""
    with pytest.raises(InputError, match="2o is no spherical harmonic"):
        o3.SphericalHarmonics("2o", True)
    with pytest.raises(InputError, match="normalization must be one of"):
        o3.SphericalHarmonics("1o", True, "components")
