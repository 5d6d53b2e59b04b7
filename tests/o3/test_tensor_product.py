"""Our tensor products against e3nn's with the same arguments: every mode and option, to second order."""

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

BATCH = 3
MODES = {  # mode -> multiplicities (x, y, out)
    "uvw": (2, 3, 4),
    "uvu": (2, 3, 2),
    "uvv": (2, 3, 3),
    "uuw": (3, 3, 2),
    "uuu": (3, 3, 3),
    "uvuv": (2, 3, 6),
    "uvu<v": (4, 4, 6),
    "u<vw": (4, 4, 2),
}
WITHOUT_WEIGHTS = ("uvu", "uvv", "uuu", "uvuv", "uvu<v")
DEGREES = [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1), (1, 2, 3), (2, 2, 2)]


def _product(mode: str, has_weight: bool, degrees: tuple[int, int, int]) -> tuple:
    """Two paths of ``mode`` and one of mode uvw into the same output, in parities that allow them."""
    (l1, l2, l3), (m1, m2, m3) = degrees, MODES[mode]
    in1, in2, out = f"{m1}x{l1}e + 2x0o", f"1x1o + {m2}x{l2}e", f"{m3}x{l3}e + 2x0o"
    return in1, in2, out, [(0, 1, 0, mode, has_weight), (0, 1, 0, mode, has_weight, 0.3), (0, 1, 0, "uvw", True, 2.0)]


def _inputs(product: e3nn.o3.TensorProduct | tuple, *leading: int) -> list[torch.Tensor]:
    in1, in2 = (product[0], product[1]) if isinstance(product, tuple) else (product.irreps_in1, product.irreps_in2)
    return random_like([(*leading, o3.Irreps(in1).dim), (*leading, o3.Irreps(in2).dim)])


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize(
    ("mode", "has_weight"),
    [*((mode, True) for mode in MODES), *((mode, False) for mode in WITHOUT_WEIGHTS)],
)
def test_modes(mode: str, has_weight: bool, degrees: tuple[int, int, int]) -> None:
    arguments = _product(mode, has_weight, degrees)
    assert_drop_in(o3.TensorProduct, e3nn.o3.TensorProduct, _inputs(arguments, BATCH), *arguments)


def test_sum_over_equal_channels_without_weights() -> None:
    arguments = "3x1o + 2x2e", "3x1o + 2x2e", "1x0e + 1x2e", [(0, 0, 0, "uuw", False), (1, 1, 1, "uuw", False)]
    assert_drop_in(o3.TensorProduct, e3nn.o3.TensorProduct, _inputs(arguments, BATCH), *arguments)


OPTIONS = [
    {"irrep_normalization": "norm"},
    {"irrep_normalization": "none", "path_normalization": "none"},
    {"path_normalization": "path"},
    {"in1_var": [0.5, 2.0], "in2_var": [3.0, 0.7], "out_var": torch.tensor([1.5, 0.0])},
    {"internal_weights": False, "shared_weights": True},
    {"compile_right": True},
    {"compile_right": True, "_specialized_code": False, "_optimize_einsums": False},
    {"compile_left_right": False},
]
PATHS = (
    "2x0e + 3x1o",
    "3x1o + 1x2e",
    "4x1o + 3x1e",
    [(0, 0, 0, "uvw", True), (1, 1, 0, "uvw", True, 0.25), (1, 0, 1, "uuu", True), (1, 0, 1, "uvv", False)],
)


@pytest.mark.parametrize("options", OPTIONS)
def test_options(options: dict) -> None:
    if options.get("compile_left_right", True) and options.get("internal_weights", True):
        ours, theirs = assert_drop_in(o3.TensorProduct, e3nn.o3.TensorProduct, _inputs(PATHS, BATCH), *PATHS, **options)
    else:
        ours, theirs = o3.TensorProduct(*PATHS, **options), e3nn.o3.TensorProduct(*PATHS, **options)
    for name in ("instructions", "weight_numel", "internal_weights", "shared_weights", "irreps_in1", "irreps_out"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert torch.equal(ours.output_mask, theirs.output_mask)
    assert ours._specialized_code == theirs._specialized_code
    assert ours._optimize_einsums == theirs._optimize_einsums


def test_normalization_is_an_old_name() -> None:
    with pytest.warns(DeprecationWarning, match="irrep_normalization"):
        old = o3.TensorProduct(*PATHS, normalization="norm")
    assert old.instructions == o3.TensorProduct(*PATHS, irrep_normalization="norm").instructions


@pytest.mark.parametrize(
    ("x", "y", "w"),
    [((), (), ()), ((5,), (5,), (5,)), ((4, 1), (3,), (1, 3)), ((1,), (6,), (6,)), ((2, 1, 3), (4, 1), (1,)),
     ((0,), (1,), (0,)), ((2, 0), (1, 1), (1,)), ((1,), (1,), (5,))],
)  # fmt: skip
@pytest.mark.parametrize("shared", [True, False])
def test_leading_dimensions_broadcast(x: tuple, y: tuple, w: tuple, shared: bool) -> None:
    options = {"shared_weights": shared, "internal_weights": False}
    ours, theirs = o3.TensorProduct(*PATHS, **options), e3nn.o3.TensorProduct(*PATHS, **options)
    w = () if shared else (w or (1,))
    inputs = random_like([(*x, ours.irreps_in1.dim), (*y, ours.irreps_in2.dim), (*w, ours.weight_numel)])
    assert_same_values(derivatives(ours, inputs, []), derivatives(theirs, inputs, []))


@pytest.mark.parametrize("shared", [True, False])
def test_weights_as_a_list(shared: bool) -> None:
    ours = o3.TensorProduct(*PATHS, shared_weights=shared, internal_weights=False)
    x, y = _inputs(ours, BATCH)
    batch = () if shared else (BATCH,)
    blocks = [torch.randn(*batch, *ins.path_shape) for ins in ours.instructions if ins.has_weight]
    flat = torch.cat([block.flatten(len(batch)) for block in blocks], dim=-1)
    assert torch.equal(ours(x, y, blocks), ours(x, y, flat))


def test_weight_views_behind_an_instruction_without_weights() -> None:
    product = o3.TensorProduct("2x1o", "2x1o", "2x0e", [(0, 0, 0, "uuu", False), (0, 0, 0, "uvw", True)])
    [view] = product.weight_views()
    assert view.shape == (2, 2, 2)
    assert torch.equal(product.weight_view_for_instruction(1), view)
    with torch.no_grad():
        product.weight_view_for_instruction(-1).fill_(2.0)
    assert bool((product.weight == 2.0).all())
    with pytest.raises(ValueError, match="no weights"):
        product.weight_view_for_instruction(0)
    unshared = o3.FullyConnectedTensorProduct("2x1o", "3x0e", "4x1o", shared_weights=False)
    assert unshared.weight_view_for_instruction(0, torch.randn(5, 24)).shape == (5, 2, 3, 4)


@pytest.mark.parametrize("shared", [True, False])
def test_right(shared: bool) -> None:
    options = {"shared_weights": shared, "internal_weights": False, "compile_right": True}
    ours, theirs = o3.TensorProduct(*PATHS, **options), e3nn.o3.TensorProduct(*PATHS, **options)
    leading = () if shared else (4, 1)
    inputs = random_like([(2, ours.irreps_in2.dim), (*leading, ours.weight_numel)])
    assert_same_values(derivatives(ours.right, inputs, []), derivatives(theirs.right, inputs, []))


def test_right_of_pairs() -> None:
    """Modes for which e3nn has no ``right``."""
    product = o3.TensorProduct("4x1o", "4x1o", "6x2e", [(0, 0, 0, "uvu<v", False)], compile_right=True)
    x, y = _inputs(product, BATCH)
    torch.testing.assert_close(torch.einsum("bi,bik->bk", x, product.right(y)), product(x, y))


SUBCLASSES = [
    ("FullyConnectedTensorProduct", ("3x0e + 2x1o", "2x0e + 1x1o", "2x0e + 3x1o + 1x2e + 1x1e")),
    ("FullyConnectedTensorProduct", ("3x0e + 2x1o", "4x0e", "2x1o + 5x0e + 2x3o", "norm", "path")),
    ("ElementwiseTensorProduct", ("5x1o + 5x1e", "10x1e", ["0e", "0o"])),
    ("ElementwiseTensorProduct", ("2x0e + 3x1o", "3x1o + 2x0e")),
    ("FullTensorProduct", ("2x0e + 3x1o", "2x1o + 1x2e")),
    ("FullTensorProduct", ("2x0e + 3x1o", "2x1o + 1x2e", ["1o", "2e"], "norm")),
]
SQUARES = [("2x0e + 3x1o",), ("2x0e + 3x1o + 1x2e", "4x0e + 2x2e"), ("3x1o + 2x2e", None, ["0e", "2e"], "norm")]


@pytest.mark.parametrize(("name", "arguments"), SUBCLASSES)
def test_products_with_instructions_of_their_own(name: str, arguments: tuple) -> None:
    ours, theirs = assert_drop_in(getattr(o3, name), getattr(e3nn.o3, name), _inputs(arguments, BATCH), *arguments)
    assert ours.irreps_out == theirs.irreps_out
    assert_equivariant(ours)


@pytest.mark.parametrize("arguments", SQUARES)
def test_tensor_square(arguments: tuple) -> None:
    inputs = random_like([(BATCH, o3.Irreps(arguments[0]).dim)])
    ours, theirs = assert_drop_in(o3.TensorSquare, e3nn.o3.TensorSquare, inputs, *arguments)
    assert ours.irreps_in == theirs.irreps_in
    assert ours.irreps_out == theirs.irreps_out
    assert_equivariant(ours)


@pytest.mark.parametrize("mode", MODES)
def test_equivariant(mode: str) -> None:
    for degrees in DEGREES:
        assert_equivariant(o3.TensorProduct(*_product(mode, True, degrees)))


def test_compile_and_export() -> None:
    product = o3.TensorProduct(*PATHS)
    assert_compiles(product, _inputs(product, 4))
    external = o3.TensorProduct(*PATHS, shared_weights=False)
    assert_compiles(external, [*_inputs(external, 4), *random_like([(4, external.weight_numel)])])


def test_vmap() -> None:
    product = o3.TensorProduct(*PATHS)
    x, y = _inputs(product, 2, 5)
    torch.testing.assert_close(torch.func.vmap(product)(x, y), product(x, y))
    torch.testing.assert_close(torch.func.vmap(product, in_dims=(1, None), out_dims=1)(x, y[0, 0]), product(x, y[0, 0]))


def test_dtype_follows_the_module() -> None:
    product = o3.FullTensorProduct("2x0e + 3x1o", "2x1o").float()
    assert product(*(tensor.float() for tensor in _inputs(product, BATCH))).dtype == torch.float32


@st.composite
def _products(draw: st.DrawFn) -> tuple:
    """Irreps with zeros among the multiplicities, and any instructions that fit them."""
    irreps = st.lists(
        st.tuples(st.integers(0, 3), st.tuples(st.integers(0, 2), st.sampled_from([1, -1]))), min_size=1, max_size=3
    ).map(o3.Irreps)
    in1, in2, out = draw(irreps), draw(irreps), []
    instructions = []
    for i, (m1, ir1) in enumerate(in1):
        for j, (m2, ir2) in enumerate(in2):
            for ir in ir1 * ir2:
                modes = ["uvw", "uvu", "uvv", "uvuv", *(["uuw", "uuu", "uvu<v", "u<vw"] if m1 == m2 else [])]
                mode = draw(st.sampled_from([None, *modes]))
                if mode is None:
                    continue
                count = {"uvu": m1, "uvv": m2, "uuu": m1, "uvuv": m1 * m2, "uvu<v": m1 * (m1 - 1) // 2}.get(mode)
                out.append((draw(st.integers(0, 3)) if count is None else count, ir))
                has_weight = count is None or draw(st.booleans())
                instructions.append((i, j, len(out) - 1, mode, has_weight, draw(st.sampled_from([1.0, 0.5, 0.0]))))
    return in1, in2, o3.Irreps(out), instructions


@settings(max_examples=40, deadline=None)
@given(_products(), st.integers(0, 3))
def test_any_irreps_and_instructions(arguments: tuple, batch: int) -> None:
    ours, theirs = o3.TensorProduct(*arguments), e3nn.o3.TensorProduct(*arguments)
    theirs.load_state_dict(ours.state_dict())
    inputs = _inputs(arguments, batch)
    by_ours, by_theirs = list(ours.parameters()), list(theirs.parameters())
    assert_same_values(derivatives(ours, inputs, by_ours), derivatives(theirs, inputs, by_theirs))


BAD = [
    ([(0, 0, 0, "uvx", True)], "the mode must be one of"),
    ([(2, 0, 0, "uvw", True)], "no index into irreps_in1"),
    ([(0, 0, 0)], "an instruction is"),
    ([(1, 0, 0, "uvw", True)], "1o x 1o does not contain 1o"),
    ([(0, 0, 0, "uvu", True)], "channels"),
    ([(0, 0, 0, "uvw", False)], "needs weights"),
]


@pytest.mark.parametrize(("instructions", "message"), BAD)
def test_bad_instructions(instructions: list, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        o3.TensorProduct("2x0e + 3x1o", "3x1o", "4x1o", instructions)
    assert isinstance(caught.value, AssertionError)  # as e3nn
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"irrep_normalization": "components"}, "did you mean 'component'"),
        ({"path_normalization": "irrep"}, "path_normalization"),
        ({"in1_var": [1.0]}, "in1_var needs 2 values"),
        ({"internal_weights": True, "shared_weights": False}, "exclude each other"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        o3.TensorProduct(*PATHS, **options)


def test_bad_calls() -> None:
    product = o3.TensorProduct(*PATHS)
    x, y = _inputs(product, BATCH)
    with pytest.raises(InputError, match="last dimension of x must be 11"):
        product(x[:, 1:], y)
    with pytest.raises(InputError, match="last dimension of y must be 14"):
        product(x, y[:, 1:])
    with pytest.raises(InputError, match="last dimension of weight"):
        product(x, y, product.weight[1:])
    with pytest.raises(InputError, match=r"shared weights must be \["):
        product(x, y, product.weight.expand(BATCH, -1))
    with pytest.raises(InputError, match="compile_right=True"):
        product.right(y)
    with pytest.raises(InputError, match="compile_left_right=False"):
        o3.TensorProduct(*PATHS, compile_left_right=False)(x, y)
    without = o3.TensorProduct(*PATHS, shared_weights=False)
    with pytest.raises(InputError, match="call it with weights") as caught:
        without(x, y)
    assert isinstance(caught.value, RuntimeError)  # as e3nn
    with pytest.raises(InputError, match="no batch dimension"):
        without(x, y, product.weight)
    with pytest.raises(InputError, match="as many irreps on both sides"):
        o3.ElementwiseTensorProduct("2x0e", "3x1o")
