"""Our Linear and Norm against e3nn's with the same arguments, to second order."""

from __future__ import annotations

import e3nn.o3
import pytest
import torch
from e3nn.util.test import assert_equivariant
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_fast import o3
from nequip_fast.errors import InputError
from tests.drop_in import assert_compiles, assert_drop_in, assert_same_values, derivatives, random_like

IN, OUT = "4x0e + 3x0e + 2x1o + 1x1o", "5x0e + 2x0e + 3x1o"  # blocks of the same irrep that stay apart
CASES = [
    (("8x0e", "8x0e"), {}),
    (("7x0e + 13x1o + 5x2e", "5x2e + 3x0e + 4x1o"), {}),
    (("4x0o + 3x0e + 5x1o + 2x1e", "6x0e + 2x1e + 3x3o"), {}),  # 3o has no input, 0o and 1o no output
    (("3x1o", "4x0e"), {}),
    (("0x0e + 2x1o", "3x1o + 0x1o + 2x0e"), {}),
    ((IN, OUT), {}),
    ((IN, OUT), {"path_normalization": "path"}),
    ((IN, OUT), {"biases": True}),
    ((IN, OUT), {"biases": [False, True, False]}),
    ((IN, OUT), {"instructions": [(2, 2), (0, 1), (0, 1), (3, 2)]}),
    ((IN, OUT), {"instructions": []}),
    ((IN, OUT), {"f_in": 3, "f_out": 2}),
    ((IN, OUT), {"f_in": 3, "f_out": 2, "biases": True, "path_normalization": "path"}),
    ((IN, OUT), {"_optimize_einsums": False}),
]


@pytest.mark.parametrize(("arguments", "options"), CASES)
def test_linear(arguments: tuple, options: dict) -> None:
    channels = (options["f_in"],) if "f_in" in options else ()
    inputs = random_like([(2, 3, *channels, o3.Irreps(arguments[0]).dim)])
    ours, theirs = assert_drop_in(o3.Linear, e3nn.o3.Linear, inputs, *arguments, **options)
    for name in ("instructions", "weight_numel", "bias_numel", "irreps_in", "irreps_out", "weight_index_slices"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert torch.equal(ours.output_mask, theirs.output_mask)
    assert ours._optimize_einsums == theirs._optimize_einsums


@pytest.mark.parametrize("batch", [(), (0,), (4,), (2, 0, 3)])
def test_leading_dimensions(batch: tuple) -> None:
    ours, theirs = o3.Linear(IN, OUT), e3nn.o3.Linear(IN, OUT)
    theirs.load_state_dict(ours.state_dict())
    inputs = random_like([(*batch, ours.irreps_in.dim)])
    assert_same_values(derivatives(ours, inputs, [ours.weight]), derivatives(theirs, inputs, [theirs.weight]))


@pytest.mark.parametrize("channels", [{}, {"f_in": 3, "f_out": 2}])
@pytest.mark.parametrize("shared", [True, False])
def test_weights_from_outside(shared: bool, channels: dict) -> None:
    # e3nn's optimised code spreads a bias over the batch, and fails, where weights are not shared
    options = {
        "internal_weights": False,
        "shared_weights": shared,
        "biases": True,
        "_optimize_einsums": False,
        **channels,
    }
    ours, theirs = o3.Linear(IN, OUT, **options), e3nn.o3.Linear(IN, OUT, **options)
    assert not ours.internal_weights
    batch, f_in, f_out = () if shared else (4,), *([(3,), (2,)] if channels else [(), ()])
    inputs = random_like(
        [(4, *f_in, ours.irreps_in.dim), (*batch, *f_in, *f_out, ours.weight_numel), (*f_out, ours.bias_numel)]
    )
    assert_same_values(derivatives(ours, inputs, []), derivatives(theirs, inputs, []))
    with pytest.raises(InputError, match="call it with weights"):
        ours(inputs[0])
    with pytest.raises(InputError, match="call it with biases"):
        ours(*inputs[:2])


def test_weight_views() -> None:
    linear = o3.Linear("4x0e + 3x1o", "2x1o + 8x0e", biases=True)
    assert [view.shape for view in linear.weight_views()] == [(4, 8), (3, 2)]
    for index, instruction, view in linear.weight_views(yield_instruction=True):
        assert linear.instructions[index] == instruction
        assert torch.equal(view, linear.weight_view_for_instruction(index))
    assert linear.weight_view_for_instruction(1, torch.randn(5, linear.weight_numel)).shape == (5, 3, 2)


def test_equivariant_compiles_exports_and_maps() -> None:
    linear = o3.Linear(IN, OUT, biases=True)
    assert_equivariant(linear)
    [x] = random_like([(4, linear.irreps_in.dim)])
    assert_compiles(linear, [x])
    torch.testing.assert_close(torch.func.vmap(linear)(x), linear(x))
    assert_compiles(o3.Linear(IN, OUT, f_in=3, f_out=2, biases=True), random_like([(4, 3, linear.irreps_in.dim)]))


_IRREPS = st.lists(
    st.tuples(st.integers(0, 3), st.tuples(st.integers(0, 2), st.sampled_from([1, -1]))), max_size=4
).map(o3.Irreps)


@settings(max_examples=40, deadline=None)
@given(_IRREPS, _IRREPS, st.booleans(), st.integers(0, 3))
def test_any_irreps(irreps_in: o3.Irreps, irreps_out: o3.Irreps, biases: bool, batch: int) -> None:
    if not irreps_in.dim or not irreps_out.dim:
        return  # there e3nn fails; see test_biases_alone
    reached = [biases and ir.is_scalar() and any(mul and ir == i for mul, i in irreps_in) for _, ir in irreps_out]
    ours, theirs = (kind(irreps_in, irreps_out, biases=reached) for kind in (o3.Linear, e3nn.o3.Linear))
    theirs.load_state_dict(ours.state_dict())
    inputs = random_like([(batch, irreps_in.dim)])
    by_ours, by_theirs = list(ours.parameters()), list(theirs.parameters())
    assert_same_values(derivatives(ours, inputs, by_ours), derivatives(theirs, inputs, by_theirs))


@pytest.mark.parametrize("irreps", ["", "0x0e + 0x1o", "7x1o"])
def test_biases_alone(irreps: str) -> None:
    """Where nothing but a bias reaches an output, e3nn's layer fails for more than one row."""
    linear = o3.Linear(irreps, "3x0e + 1x2e", biases=True)
    torch.nn.init.normal_(linear.bias)
    expected = torch.cat([linear.bias, torch.zeros(5)]).expand(2, -1)
    assert torch.equal(linear(torch.randn(2, linear.irreps_in.dim)), expected)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"instructions": [(0, 2)]}, AssertionError, "do not have the same irrep"),
        ({"instructions": [(4, 0)]}, IndexError, "4 is not a valid index"),
        ({"f_in": 3}, AssertionError, "come together"),
        ({"biases": [True]}, AssertionError, "biases must say"),
        ({"biases": [False, False, True]}, AssertionError, "only for 0e"),
        ({"path_normalization": "paths"}, AssertionError, "did you mean 'path'"),
        ({"internal_weights": True, "shared_weights": False}, AssertionError, "exclude each other"),
    ],
)
def test_bad_arguments(options: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        o3.Linear(IN, OUT, **options)
    assert isinstance(caught.value, kind)


def test_bad_calls() -> None:
    linear = o3.Linear(IN, OUT)
    with pytest.raises(InputError, match=r"features must be \[..., 16\]"):
        linear(torch.randn(2, 15))
    with pytest.raises(InputError, match="last dimension of the weights"):
        linear(torch.randn(2, 16), torch.randn(3))


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("irreps", ["5x0e", "2x0e + 3x0e + 4x1o + 1x2e", "3x1e + 0x2o"])
def test_norm(irreps: str, squared: bool) -> None:
    inputs = random_like([(2, 3, o3.Irreps(irreps).dim)])
    ours, theirs = assert_drop_in(o3.Norm, e3nn.o3.Norm, inputs, irreps, squared=squared)
    assert ours.irreps_in == theirs.irreps_in
    assert ours.irreps_out == theirs.irreps_out
    assert ours.squared == squared
    assert_equivariant(ours)


def test_gradient_of_the_norm_is_zero_at_zero() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    [gradient] = torch.autograd.grad(o3.Norm("1x0e + 1x1o")(x).sum(), x)
    assert torch.equal(gradient, torch.zeros_like(x))
