"""The modules of ``e3nn.nn`` that are ours against e3nn's with the same arguments, to second order."""

from __future__ import annotations

import copy

import e3nn.nn
import pytest
import torch
from e3nn.util.test import assert_equivariant
from torch.nn.functional import silu

from nequip_fast import nn, o3
from nequip_fast.errors import InputError
from tests.drop_in import assert_compiles, assert_drop_in, assert_same_values, derivatives, random_like

GATES = [
    ("16x0o", [torch.tanh], "32x0o", [torch.tanh], "16x1e + 16x1o"),
    ("7x0e + 3x0o", [silu, torch.tanh], "13x0e + 5x0e", [silu, torch.sigmoid], "13x1o + 5x2e"),
    ("2x0e + 3x0e + 1x0o", [silu, None, torch.abs], "4x0e", [silu], "1x1o + 3x2e"),
    ("4x0e", [silu], "2x0o + 3x0e", [torch.tanh, None], "2x1o + 3x1o"),
    ("", [], "3x0e", [torch.sigmoid], "3x1o"),
    ("4x0e", [silu], "", [], ""),
]


@pytest.mark.parametrize("arguments", GATES)
def test_gate(arguments: tuple) -> None:
    dim = sum(o3.Irreps(arguments[i]).dim for i in (0, 2, 4))
    ours, theirs = assert_drop_in(nn.Gate, e3nn.nn.Gate, random_like([(2, 3, dim)]), *arguments)
    for name in ("irreps_in", "irreps_out", "irreps_scalars", "irreps_gates", "irreps_gated"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert_equivariant(ours)


def test_gate_with_an_activation_of_its_own() -> None:
    """Any callable is an activation, a module too."""
    act = torch.nn.Softplus()
    arguments = "4x0e", [act], "2x0e", [lambda x: x.cos()], "2x1o"
    torch.manual_seed(1)
    ours, theirs = nn.Gate(*arguments), e3nn.nn.Gate(*arguments)
    [x] = random_like([(5, ours.irreps_in.dim)])
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("4x0e", [silu], "2x1o", [silu], "2x1o"), "must be scalars"),
        (("4x1o", [silu], "2x0e", [silu], "2x1o"), "must be scalars"),
        (("4x0e", [silu], "3x0e", [silu], "2x1o"), "different number"),
        (("4x0o", [silu], "2x0e", [silu], "2x1o"), "parity"),
    ],
)
def test_bad_gates(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.Gate(*arguments)


@pytest.mark.parametrize(
    ("irreps", "acts"),
    [("4x0e", [silu]), ("4x0e + 3x0o + 2x1o", [silu, torch.tanh, None]), ("3x0o + 2x0e", [torch.abs, None]), ("", [])],
)
def test_activation(irreps: str, acts: list) -> None:
    inputs = random_like([(2, 3, o3.Irreps(irreps).dim)])
    ours, theirs = assert_drop_in(nn.Activation, e3nn.nn.Activation, inputs, irreps, acts)
    assert ours.irreps_out == theirs.irreps_out
    if irreps:
        moved = inputs[0].transpose(1, 2)
        torch.testing.assert_close(ours(moved, dim=1), theirs(moved, dim=1))


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (([8, 64, 64, 33], silu), {}),
        (([7, 13, 5], torch.tanh), {"variance_in": 2, "variance_out": 3}),
        (([7, 13, 5], torch.tanh), {"variance_out": 3, "out_act": True}),
        (([4, 5, 6, 7],), {"variance_in": 2, "variance_out": 3}),
        (([4, 5, 6], torch.nn.functional.gelu), {}),
        (([4, 6], silu), {"out_act": True}),
        (([4, 5, 0], silu), {}),
        (([4, 0, 3], silu), {}),
        (([4],), {}),
    ],
)
def test_fully_connected_net(arguments: tuple, settings: dict) -> None:
    """Activations with a kernel and without, also at the end; variances; one layer, none."""
    inputs = random_like([(2, 3, arguments[0][0])])
    ours, theirs = assert_drop_in(nn.FullyConnectedNet, e3nn.nn.FullyConnectedNet, inputs, *arguments, **settings)
    assert ours.hs == theirs.hs
    own_code = torch.nn.functional.gelu in arguments or len(ours) < 2 or 0 in ours.hs
    assert (ours._problem is None) == own_code
    if len(ours):
        with pytest.raises((AssertionError, RuntimeError)):
            ours(inputs[0][..., 1:])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("irreps", ["8x0e", "7x0e + 13x1o + 5x2e", "4x0o + 3x1e + 2x1e"])
def test_norm_activation(irreps: str, bias: bool) -> None:
    inputs = random_like([(2, 3, o3.Irreps(irreps).dim)])
    ours, theirs = assert_drop_in(
        nn.NormActivation, e3nn.nn.NormActivation, inputs, o3.Irreps(irreps), torch.tanh, bias=bias
    )
    assert ours.irreps_out == theirs.irreps_out
    assert_equivariant(ours)
    zero = torch.zeros(2, o3.Irreps(irreps).dim, requires_grad=True)
    assert not ours(zero).any()
    [gradient] = torch.autograd.grad(ours(zero).sum(), zero)
    assert bool(gradient.isfinite().all())
    assert ours(zero[:0]).shape == zero[:0].shape


def test_norm_activation_without_normalising() -> None:
    x = torch.randn(5, 3)
    expected = torch.tanh(x.norm(dim=1, keepdim=True)) * x
    torch.testing.assert_close(nn.NormActivation("1x1o", torch.tanh, normalize=False)(x), expected)
    with pytest.raises(InputError, match="epsilon"):
        nn.NormActivation("1x1o", torch.tanh, normalize=False, epsilon=1e-5)
    with pytest.raises(InputError, match="positive"):
        nn.NormActivation("1x1o", torch.tanh, epsilon=0.0)


@pytest.mark.parametrize("squeeze", [True, False])
@pytest.mark.parametrize(
    ("irreps_outs", "instructions"),
    [
        (["0e", "2x0e"], [(1,), (2,)]),
        (["1e + 0e + 2x0e"], [(0, 1, 2)]),
        (["2x0e + 1e"], [(2, 0)]),
        (["", "1e"], [(), (0,)]),
    ],
)
def test_extract(irreps_outs: list, instructions: list, squeeze: bool) -> None:
    arguments = "1e + 0e + 2x0e", irreps_outs, instructions, squeeze
    ours, theirs = nn.Extract(*arguments), e3nn.nn.Extract(*arguments)
    inputs = random_like([(2, 3, 6)])
    assert_same_values(derivatives(ours, inputs, []), derivatives(theirs, inputs, []))
    assert isinstance(ours(*inputs), torch.Tensor) == (squeeze and len(irreps_outs) == 1)
    assert ours.irreps_outs == theirs.irreps_outs
    assert not ours.state_dict()
    assert_same_values(derivatives(copy.deepcopy(ours), inputs, []), derivatives(theirs, inputs, []))


def test_extract_copies() -> None:
    """As e3nn's: writing to an output leaves the input alone."""
    x = torch.randn(2, 4)
    before = x.clone()
    for y in nn.Extract("1e + 0e", ["1e", "1e + 0e"], [(0,), (0, 1)])(x):
        y.zero_()
    nn.ExtractIr("1e + 0e", "0e")(x).zero_()
    assert torch.equal(x, before)


def test_extract_ir() -> None:
    ours, theirs = nn.ExtractIr("1e + 2x0e + 1x0e", "0e"), e3nn.nn.ExtractIr("1e + 2x0e + 1x0e", "0e")
    x = torch.randn(5, 6)
    assert torch.equal(ours(x), theirs(x))
    assert ours.irreps_out == theirs.irreps_out
    assert_equivariant(ours)
    with pytest.raises(AssertionError, match="last dimension must be 6"):
        ours(x[:, 1:])


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_dropout(p: float) -> None:
    """The same seed drops the same copies."""
    ours, theirs = nn.Dropout("10x1e + 10x0e", p), e3nn.nn.Dropout("10x1e + 10x0e", p)
    assert repr(ours) == repr(theirs)
    x = torch.randn(4, 2, 40)
    torch.manual_seed(3)
    y = ours(x)
    torch.manual_seed(3)
    assert torch.equal(y, theirs(x))
    assert torch.equal(ours.eval()(x), x)


@pytest.mark.parametrize(
    ("module", "dim"),
    [
        (lambda: nn.Gate("4x0e", [silu], "2x0e", [torch.sigmoid], "2x1o"), 12),
        (lambda: nn.NormActivation(o3.Irreps("4x0e + 2x1o"), torch.tanh, bias=True), 10),
        (lambda: nn.Activation("4x0e + 2x1o", [silu, None]), 10),
        (lambda: nn.ExtractIr("4x0e + 2x1o", "1o"), 10),
        (lambda: nn.FullyConnectedNet([10, 8, 5], silu), 10),
        (lambda: nn.BatchNorm("4x0e + 2x1o").eval(), 10),
        (lambda: nn.Dropout("4x0e + 2x1o", 0.5).eval(), 10),
    ],
)
def test_compiles_exports_and_maps(module, dim: int) -> None:
    made = module()
    [x] = random_like([(4, dim)])
    assert_compiles(made, [x])
    torch.testing.assert_close(torch.func.vmap(made)(x.unsqueeze(1)).squeeze(1), made(x))


def test_dropout_compiles_in_training() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(nn.Dropout("4x0e + 2x1o", 0.5), fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 10)
    y = compiled(x)
    assert bool(((y == 0) | (y == 2 * x)).all())


def _custom(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + x.square())


@pytest.mark.parametrize("act", [torch.tanh, torch.nn.Tanh(), torch.abs, _custom, torch.nn.functional.tanh])
def test_gate_of_any_function(act) -> None:
    """Functions with kernels, in any spelling, and one that has none."""
    arguments = "3x0o + 2x0e", [torch.tanh, silu], "4x0o", [act], "1x1o + 3x2e"
    ours, theirs = nn.Gate(*arguments), e3nn.nn.Gate(*arguments)
    assert (ours.problem is None) == (act is _custom)
    inputs = random_like([(2, 3, ours.irreps_in.dim)])
    assert_same_values(derivatives(ours, inputs, []), derivatives(theirs, inputs, []))


@pytest.mark.parametrize("act", [torch.relu, torch.nn.SiLU(), torch.nn.functional.gelu, None])
@pytest.mark.parametrize("dim", [-1, 1])
def test_activation_along_any_dimension(act, dim: int) -> None:
    ours, theirs = (module("3x0e + 2x0e + 1o", [silu, act, None]) for module in (nn.Activation, e3nn.nn.Activation))
    [x] = random_like([(2, 8, 8)])
    torch.testing.assert_close(ours(x, dim), theirs(x, dim))


def test_features_that_do_not_fit() -> None:
    gate, activation = nn.Gate("4x0e", [silu], "2x0e", [silu], "2x1o"), nn.Activation("4x0e", [silu])
    for module, dim in ((gate, 11), (activation, 5)):
        with pytest.raises(RuntimeError, match="must be"):  # the kind of error that e3nn raises
            module(torch.randn(2, dim))
