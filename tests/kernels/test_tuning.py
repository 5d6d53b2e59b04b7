"""Block sizes that are found by measuring: every one computes the same, and what was found is kept and used."""

import json

import pytest
import torch

import nequip_fast
from nequip_fast.errors import InputError
from nequip_fast.ops import ConvProblem, conv, conv_of_hidden, radial, spherical_harmonics, tensor_product, use_backend
from tests.helpers import KERNELS, all_paths, inputs, random_graph, relative_error

needs_kernels = pytest.mark.skipif(KERNELS != "triton", reason="NEQUIP_FAST_TEST_KERNELS is not triton")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A folder of its own for what is found."""
    from nequip_fast.kernels import tuning

    monkeypatch.setenv("NEQUIP_FAST_CACHE", str(tmp_path / "cache"))
    tuning._table.cache_clear()
    yield tmp_path / "cache"
    tuning._table.cache_clear()


def convolution(irreps="5x0e+3x1o"):
    """Value and gradients, without arguments."""
    problem = ConvProblem.from_irreps(*all_paths(irreps, 1, 1))
    graph = random_graph(4, 11)
    tensors = inputs(problem, graph)

    def function():
        value = conv(*tensors, graph, problem)
        return [value, *torch.autograd.grad(value.sin().sum(), tensors)]

    return function


def fused():
    problem = ConvProblem.from_irreps(*all_paths("5x0e+3x1o", 1, 1))
    graph = random_graph(4, 11)
    x, y, _ = inputs(problem, graph)
    h = torch.randn(11, 7, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(7, problem.dim_w, dtype=torch.float64)

    def function():
        value = conv_of_hidden(x, y, h, matrix, graph, problem)
        return [value, *torch.autograd.grad(value.sin().sum(), (x, y, h))]

    return function


def product():
    from tests.ops.test_tensor_product import one_path

    problem, _ = one_path("uvw", (1, 1, 2))
    tensors = [
        torch.randn(rows, dim, dtype=torch.float64, requires_grad=True)
        for rows, dim in ((35, problem.dim_x), (35, problem.dim_y), (1, problem.dim_w))
    ]

    def function():
        value = tensor_product(*tensors, problem)
        return [value, *torch.autograd.grad(value.sin().sum(), tensors)]

    return function


def geometry():
    vectors = torch.randn(70, 3, dtype=torch.float64, requires_grad=True)
    roots = torch.arange(1, 4, dtype=torch.float64)

    def function():
        value = spherical_harmonics(vectors, 2) * radial(vectors.norm(dim=1, keepdim=True) / 5, roots[:1], 6.0)
        return [value, *torch.autograd.grad(value.sin().sum(), vectors)]

    return function


@needs_kernels
@pytest.mark.parametrize("make", [convolution, fused, product, geometry])
def test_every_tile_computes_the_same(make, monkeypatch):
    """Each tile that could be chosen, in place of the rule of thumb."""
    from nequip_fast.kernels.operators import launch

    function = make()
    with use_backend("reference"):
        expected = function()
    most = 1
    turn = 0

    def one_of(launched):
        nonlocal most
        most = max(most, len(launched.tiles))
        return launched.tiles[turn % len(launched.tiles)]

    monkeypatch.setattr(launch, "chosen", one_of)
    while turn < most:
        for ours, theirs in zip(function(), expected, strict=True):
            assert relative_error(ours, theirs) < 1e-12
        turn += 1
    assert most > 2


@needs_kernels
def test_what_is_found_is_kept_and_used(folder):
    """The best tile by the given measure; another size of problem uses it; a second call adds to the file."""
    from nequip_fast.kernels import tuning

    def measure(launch, tile):
        return 1.0 / (1 + launch.tiles.index(tile))  # the last is the best

    function = convolution()
    before = function()
    found = nequip_fast.tune(function, measure=measure)
    kept = json.loads((folder / "tiles.json").read_text())["none"]
    assert kept == found
    assert {entry["kernel"] for entry in found.values()} >= {"sum_over_edges", "gradients_of_edges", "to_channel_last"}
    seen = []
    for launch in _launches(convolution()):
        seen.append(tuning.chosen(launch) == launch.tiles[-1] != launch.tiles[0])
    assert all(seen)
    for a, b in zip(before, function(), strict=True):
        assert relative_error(a, b) < 1e-13
    nequip_fast.tune(convolution("7x0e"), measure=measure)
    assert set(kept) < set(json.loads((folder / "tiles.json").read_text())["none"])


def _launches(function):
    from nequip_fast.kernels import tuning

    return list(tuning._heard_of(function).values())


@needs_kernels
def test_time_is_bounded_and_failures_are_skipped(folder):
    """Nothing is measured when there is no time, and what was found before stays; what cannot run is not taken."""
    assert nequip_fast.tune(convolution(), seconds=-1.0, measure=lambda launch, tile: 1.0) == {}
    assert not folder.exists()
    launches = {launch.problem: launch for launch in _launches(convolution())}

    def measure(launch, tile):
        if tile is launch.tiles[-1]:
            raise RuntimeError("out of shared memory")
        return float(-launch.tiles.index(tile))

    found = nequip_fast.tune(convolution(), measure=measure)
    assert all(entry["tile"] == launches[problem].tiles[-2] for problem, entry in found.items())
    before = (folder / "tiles.json").read_text()
    assert nequip_fast.tune(convolution(), seconds=-1.0, measure=measure) == {}
    assert (folder / "tiles.json").read_text() == before
    again = nequip_fast.tune(convolution(), measure=lambda launch, tile: 1.0)  # none is better than the one in force
    assert {problem: entry["tile"] for problem, entry in again.items()} == {
        problem: entry["tile"] for problem, entry in found.items()
    }


@needs_kernels
def test_tiles_of_another_version_are_not_used(folder):
    """Whatever else the file holds for a problem."""
    problems = {launch.problem: launch for launch in _launches(convolution())}
    folder.mkdir()
    for tile in ({}, {"EDGES": 3}, {"SIZE": 128, "num_warps": 64}):
        table = {"none": {problem: {"tile": tile} for problem in problems}}
        (folder / "tiles.json").write_text(json.dumps(table))
        convolution()()


@needs_kernels
def test_a_damaged_table_is_ignored(folder):
    """With a warning that names it."""
    folder.mkdir()
    (folder / "tiles.json").write_text('{"none": {"0": {}}}')
    with pytest.warns(UserWarning, match=r"tiles\.json is no table of block sizes and is ignored; delete it"):
        convolution()()


def test_nothing_to_tune(folder):
    """A function that runs none of the kernels."""
    with pytest.raises(InputError, match="runs no Triton kernel with a choice of block sizes"):
        nequip_fast.tune(lambda: torch.ones(3).sum())
    assert not folder.exists()
