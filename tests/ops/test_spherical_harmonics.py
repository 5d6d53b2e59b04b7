"""Spherical harmonics: against e3nn to l = 11, derivatives to third order, odd inputs."""

import pytest
import torch
from e3nn import o3 as e3nn_o3

from nequip_fast import o3
from nequip_fast.errors import InputError
from nequip_fast.ops import spherical_harmonics, use_backend
from tests.helpers import relative_error


def vectors(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, 3, dtype=dtype)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("l_max", range(12))
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_e3nn(l_max, normalize, backend):
    """Values and gradients to 1e-12 of the largest in float64."""
    r = vectors(37).requires_grad_()
    cotangent = torch.randn(37, (l_max + 1) ** 2, dtype=torch.float64)
    theirs = e3nn_o3.spherical_harmonics(list(range(l_max + 1)), r, normalize, "component")
    with use_backend(backend):
        ours = spherical_harmonics(r, l_max, normalize)
        assert relative_error(ours, theirs) < 1e-12
        if l_max == 0:  # a constant, of which e3nn has no gradient
            return
        gradient = torch.autograd.grad(ours, r, cotangent)[0]
    assert relative_error(gradient, torch.autograd.grad(theirs, r, cotangent)[0]) < 1e-12


def test_every_instruction_set(isa):
    """Each set of kernels, both dtypes, a number of rows that fills no vector evenly."""
    for dtype, bound in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        r = vectors(43, dtype).requires_grad_()
        cotangent = torch.randn(43, 25, dtype=dtype)
        results = []
        for backend in ("cpu", "reference"):
            with use_backend(backend):
                y = spherical_harmonics(r, 4)
                (first,) = torch.autograd.grad(y, r, cotangent, create_graph=True)
                (second,) = torch.autograd.grad(first.sin().sum(), r)
            results.append((y, first, second))
        for ours, theirs in zip(*results, strict=True):
            assert relative_error(ours, theirs) < 20 * bound


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("l_max", [0, 1, 2, 3, 4, 11])
def test_finite_differences(l_max, normalize):
    """gradcheck and gradgradcheck of the compiled operators."""
    r = (vectors(2) * 0.7).requires_grad_()
    with use_backend("cpu"):
        assert torch.autograd.gradcheck(lambda v: spherical_harmonics(v, l_max, normalize), r)
        assert torch.autograd.gradgradcheck(lambda v: spherical_harmonics(v, l_max, normalize), r)


def test_third_derivative():
    """The contractions are closed under differentiation, so any order works."""
    r = vectors(3).requires_grad_()
    results = []
    for backend in ("cpu", "reference"):
        with use_backend(backend):
            value = spherical_harmonics(r, 3).sin().sum()
            for _ in range(3):
                (gradient,) = torch.autograd.grad(value, r, create_graph=True)
                value = gradient.cos().sum()
        results.append(gradient)
    assert relative_error(*results) < 1e-12


def test_empty_zero_and_strided_vectors():
    """No vectors; a zero vector has Y_0 = 1 and nothing else; strides do not matter."""
    with use_backend("cpu"):
        assert spherical_harmonics(torch.zeros(0, 3), 2).shape == (0, 9)
        zero = spherical_harmonics(torch.zeros(1, 3, dtype=torch.float64), 2)
        assert torch.equal(zero[0], torch.eye(9, dtype=torch.float64)[0])
        r = vectors(6)
        assert torch.equal(spherical_harmonics(r.T.contiguous().T, 3), spherical_harmonics(r, 3))


def test_rotation_and_inversion():
    """Y(R r) = D(R) Y(r), Y_l(−r) = (−1)^l Y_l(r)."""
    torch.set_default_dtype(torch.float64)  # e3nn builds its rotation matrices in the default dtype
    r, rotation = vectors(9), e3nn_o3.rand_matrix()
    irreps = e3nn_o3.Irreps.spherical_harmonics(4)
    d = irreps.D_from_matrix(rotation)
    assert relative_error(spherical_harmonics(r @ rotation.T, 4), spherical_harmonics(r, 4) @ d.T) < 1e-12
    signs = torch.cat([torch.full((ir.dim,), float((-1) ** ir.l)) for _, ir in irreps])
    assert torch.equal(spherical_harmonics(-r, 4), spherical_harmonics(r, 4) * signs)


def test_opcheck():
    """Schema, fake kernels and autograd of all four operators."""
    r, y = vectors(7).requires_grad_(), torch.randn(7, 9, dtype=torch.float64, requires_grad=True)
    c = vectors(7).requires_grad_()
    ops = torch.ops.nequip_fast
    torch.library.opcheck(ops.solid_harmonics, (r, 3))
    torch.library.opcheck(ops.harmonics_vjp, (y, y.detach().clone().requires_grad_()))
    torch.library.opcheck(ops.harmonics_jvp, (y, c))
    torch.library.opcheck(ops.harmonics_pull, (y, c))


def test_bad_input_is_named():
    """One sentence each."""
    with pytest.raises(InputError, match=r"vectors must be \[E, 3\], got \[4, 2\]"):
        spherical_harmonics(torch.zeros(4, 2), 2)
    with pytest.raises(InputError, match="l_max must be 0 to 11, got 12"):
        spherical_harmonics(torch.zeros(4, 3), 12)
    with pytest.raises(RuntimeError, match="components with l up to 11"):
        torch.ops.nequip_fast.harmonics_jvp(torch.zeros(2, 8), torch.zeros(2, 3))


@pytest.mark.parametrize("normalization", ["component", "norm", "integral"])
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
