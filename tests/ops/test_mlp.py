"""Perceptrons: every derivative against the definition and finite differences, odd widths, e3nn, transforms."""

from itertools import pairwise

import e3nn.nn
import pytest
import torch

from nequip_fast.errors import InputError
from nequip_fast.nn.mlp import ScalarMLP
from nequip_fast.ops import MlpLayer, MlpProblem, backend, mlp, use_backend
from nequip_fast.ops.description import describe
from nequip_fast.ops.gate import ACTIVATIONS
from tests.helpers import relative_error

SHAPES = {  # widths from below to above
    "as presets have": [8, 64, 64, 160],
    "odd": [7, 13, 5, 33],
    "one hidden layer": [3, 17, 65],
    "one channel each": [1, 1, 1],
    "deep": [8, 24, 9, 40, 16, 48],
}
ROWS = [0, 1, 5, 97, 200]  # one tile of 96 and what is left, several tasks


def problem_of(widths: list[int], activation: str = "silu") -> MlpProblem:
    names = [activation] * (len(widths) - 2) + ["identity"]
    layers = [MlpLayer(b, name, 1.3 / a**0.5) for (a, b), name in zip(pairwise(widths), names, strict=True)]
    return MlpProblem(widths[0], layers)


def operands(problem: MlpProblem, rows: int, dtype=torch.float64):
    """x, the weights, and cotangents of the value and of the gradient by x."""
    x = torch.randn(rows, problem.dim_in, dtype=dtype, requires_grad=True)
    weights = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in problem.shapes]
    g = torch.randn(rows, problem.dim_out, dtype=dtype, requires_grad=True)
    return x, weights, g, torch.randn(rows, problem.dim_in, dtype=dtype)


def derivatives(x, weights, g, d, problem, first=None):
    """The value, its gradients, and the gradients of the gradient by x: what training on forces takes."""
    out = mlp(x, weights, problem, first)
    first = torch.autograd.grad(out, (x, *weights), g, create_graph=True)
    second = torch.autograd.grad(first[0], (x, *weights, g), d, allow_unused=True, materialize_grads=True)
    return out, *first, *second


def repeats(rows: int) -> torch.Tensor:
    """Rows of which many are another, earlier one, some of them several times."""
    first = torch.arange(rows)
    for e in range(rows):
        earlier = int(torch.randint(0, e + 1, ()))
        if torch.rand(()) < 0.6 and first[earlier] == earlier:
            first[e] = earlier
    return first


def both(call):
    """The results by kernels and by the definition."""
    results = []
    for name in ("cpu", "reference"):
        with use_backend(name):
            results.append(call())
    return zip(*results, strict=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
@pytest.mark.parametrize("repeat", [False, True])
def test_every_derivative(isa, shape, dtype, bound, repeat):
    """Each of its tensors by itself, for every number of rows, each its own or some the same."""
    problem = problem_of(SHAPES[shape])
    for rows in ROWS:
        tensors, first = operands(problem, rows, dtype), repeats(rows) if repeat else None
        for ours, theirs in both(lambda tensors=tensors, first=first: derivatives(*tensors, problem, first)):
            assert ours.shape == theirs.shape
            assert relative_error(ours, theirs) < bound


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(isa, activation):
    """All that have kernels, the identity too."""
    problem = problem_of([4, 18, 18, 20], activation)
    tensors = operands(problem, 33)
    for ours, theirs in both(lambda: derivatives(*tensors, problem)):
        assert relative_error(ours, theirs) < 1e-13


def test_finite_differences():
    """gradcheck and gradgradcheck by x and by all weights."""
    problem = problem_of([3, 5, 4, 6], "tanh")
    x, weights, *_ = operands(problem, 3)
    for first in (None, torch.tensor([0, 1, 0])):
        assert torch.autograd.gradcheck(lambda x, *w, first=first: mlp(x, w, problem, first), (x, *weights))
        assert torch.autograd.gradgradcheck(lambda x, *w, first=first: mlp(x, w, problem, first), (x, *weights))


def test_second_derivatives_by_the_weights_and_third():
    """They leave the kernels for plain torch, and are right all the same."""
    problem = problem_of([4, 9, 7])

    def call():
        value = mlp(x, weights, problem, torch.tensor([0, 0, 2, 3, 2, 0])).sin().sum()
        results = []
        for _ in range(3):
            gradients = torch.autograd.grad(value, (x, *weights), create_graph=True)
            results += gradients
            value = sum(gradient.square().sum() for gradient in gradients) / 100
        return results

    x, weights, *_ = operands(problem, 6)
    for ours, theirs in both(call):
        assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("fixed", ["x", "weights", "first", "last"])
def test_gradients_that_nobody_wants(fixed):
    """Leaves that need none get none, the others are the same."""
    problem = problem_of([5, 11, 12, 20])
    x, weights, g, _ = operands(problem, 30)
    named = {"x": x, "first": weights[0], "middle": weights[1], "last": weights[2]}
    expected = dict(zip(named, torch.autograd.grad(mlp(x, weights, problem), named.values(), g), strict=True))
    left_out = ["first", "middle", "last"] if fixed == "weights" else [fixed]
    for name in left_out:
        named[name].requires_grad_(False)
    mlp(x, weights, problem).backward(g.detach())
    for name, tensor in named.items():
        assert tensor.grad is None if name in left_out else torch.equal(tensor.grad, expected[name])


def test_forces_leave_the_weights_out():
    """Where energies are differentiated by x alone the gradient by the weights is not computed, and comes out later."""
    problem = problem_of([5, 11, 12])
    x, weights, *_ = operands(problem, 30)
    with torch.profiler.profile() as profile:
        (force,) = torch.autograd.grad(mlp(x, weights, problem).sum(), x, create_graph=True)
        force.square().sum().backward()
    names = [event.name for event in profile.events()]
    assert [names.count(f"nequip_fast::mlp{end}") for end in ("", "_gradient", "_gradient_tangent")] == [1, 1, 1]
    assert all(weight.grad.abs().sum() > 0 for weight in weights)


@pytest.mark.parametrize("activation", [None, "silu"])
def test_equals_e3nn(activation):
    """e3nn's FullyConnectedNet, with the constants of its activations."""
    torch.set_default_dtype(torch.float64)
    act = activation and getattr(torch.nn.functional, activation)
    theirs = e3nn.nn.FullyConnectedNet([6, 32, 48, 50], act)
    constant = 1.0 if act is None else float(e3nn.math.normalize2mom(act).cst)
    factors = [1 / 6**0.5, constant / 32**0.5, constant / 48**0.5]
    names = [activation or "identity"] * 2 + ["identity"]
    widths = [32, 48, 50]
    problem = MlpProblem(6, [MlpLayer(*fields) for fields in zip(widths, names, factors, strict=True)])
    x = torch.randn(40, 6, requires_grad=True)
    expected, found = theirs(x), mlp(x, [layer.weight for layer in theirs], problem)
    assert relative_error(found, expected) < 1e-13
    for ours, exact in zip(*(torch.autograd.grad(out.sin().sum(), x) for out in (found, expected)), strict=True):
        assert relative_error(ours, exact) < 1e-13


@pytest.mark.parametrize("nonlinearity", [None, "None", "silu", "gelu"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_module(nonlinearity, depth):
    """ScalarMLP, whichever way it goes, is the product of its layers."""
    module = ScalarMLP(6, 21, depth, 9, nonlinearity, torch.float64)
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    assert relative_error(module(x), module.mlp(x)) < 1e-13


def test_transforms():
    """opcheck; one graph for any number of rows; vmap; torch.func; leading dimensions, strides."""
    problem = problem_of([6, 10, 11, 18])
    x, weights, g, d = operands(problem, 5)
    w = torch.cat([weight.detach().reshape(-1) for weight in weights]).requires_grad_()
    for first in (None, torch.tensor([0, 1, 1, 0, 4])):
        of = first, problem.text
        torch.library.opcheck(torch.ops.nequip_fast.mlp, (x, w, *of))
        torch.library.opcheck(torch.ops.nequip_fast.mlp_gradient, (x, w, g, *of, True, True))
        torch.library.opcheck(torch.ops.nequip_fast.mlp_gradient_tangent, (x, w, g, d, *of, True, True))

    def call(v):
        return mlp(v, weights, problem)

    compiled = torch.compile(lambda v: call(v).sin(), fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (3, 5):
        v = x[:rows].detach().requires_grad_()
        (ours,) = torch.autograd.grad(compiled(v).sum(), v)
        assert torch.equal(ours, torch.autograd.grad(call(v).sin().sum(), v)[0])
    out = mlp(x, weights, problem)
    assert relative_error(torch.vmap(call)(x), out) < 1e-14
    (exact,) = torch.autograd.grad(out, x, g)
    assert relative_error(torch.func.grad(lambda v: (call(v) * g).sum())(x), exact) < 1e-14
    jacobian = torch.func.jacrev(call)(x[0])
    assert relative_error(g[0] @ jacobian, exact[0]) < 1e-13
    assert relative_error(call(x.T.contiguous().T), out) < 1e-14
    assert torch.equal(call(x.reshape(5, 1, -1)).reshape(out.shape), out)


def test_threads_and_repeats():
    """The same bits twice; on two threads the rows are those of one, sums over rows to rounding."""
    problem = problem_of([8, 40, 50, 96])
    tensors, first, results = operands(problem, 500), repeats(500), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        results.append(derivatives(*tensors, problem, first))
    assert all(torch.equal(a, b) for a, b in zip(*results[1:], strict=True))
    for one, two in zip(*results[:2], strict=True):
        assert relative_error(two, one) < 1e-14
    assert torch.equal(results[0][0], results[1][0])


def test_other_dtypes_are_plain_torch():
    """Half precision has no kernel; weights of another dtype are refused by torch, as they are without one."""
    problem = problem_of([4, 6, 5])
    x, weights, *_ = operands(problem, 3, torch.bfloat16)
    backend._say_once.cache_clear()
    with pytest.warns(UserWarning, match="gate runs as plain torch"):
        assert mlp(x, weights, problem).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="same dtype"):
        mlp(x.double(), weights, problem)


def test_bad_input_is_named():
    """One sentence each."""
    with pytest.raises(InputError, match="no activation 'silo'; did you mean 'silu'"):
        problem_of([3, 4, 5], "silo")
    for layers in ([MlpLayer(4, "identity", 1.0)], [MlpLayer(0, "silu", 1.0), MlpLayer(4, "identity", 1.0)]):
        with pytest.raises(InputError, match="at least two layers of one channel or more are needed"):
            MlpProblem(3, layers)
    with pytest.raises(InputError, match="the last without activation"):
        MlpProblem(3, [MlpLayer(4, "silu", 1.0), MlpLayer(4, "silu", 1.0)])
    problem = problem_of([3, 4, 5])
    x, weights, *_ = operands(problem, 2)
    with pytest.raises(InputError, match=r"x must be \[..., 3\] and the weights \[\(3, 4\), \(4, 5\)\], got \[2, 4\]"):
        mlp(torch.zeros(2, 4), weights, problem)
    with pytest.raises(InputError, match=r"and \[\(4, 3\), \(4, 5\)\]"):
        mlp(x, [weights[0].T, weights[1]], problem)
    with pytest.raises(RuntimeError, match="at least two layers"):
        torch.ops.nequip_fast.mlp(x, torch.zeros(12).double(), None, describe((3, 4), [(4, 0, 1.0)]))
    with pytest.raises(RuntimeError, match=r"w must be a CPU tensor \[32\] of the dtype of x"):
        torch.ops.nequip_fast.mlp(x, torch.zeros(31).double(), None, problem.text)
    with pytest.raises(RuntimeError, match=r"x must be a CPU tensor \[..., 3\]"):
        torch.ops.nequip_fast.mlp(torch.zeros(2, 4).double(), torch.zeros(32).double(), None, problem.text)
    with pytest.raises(RuntimeError, match=r"g must be a CPU tensor \[..., 5\]"):
        torch.ops.nequip_fast.mlp_gradient(x, torch.zeros(32).double(), x, None, problem.text, True, True)
    for first in (torch.arange(3), torch.zeros(2, dtype=torch.int32)):
        with pytest.raises(InputError, match=r"first must be \[rows\] int64 for x \[rows, 3\], got \[[23]\] torch.int"):
            mlp(x, weights, problem, first)
    for first in ([1, 1], [0, -1], [0, 2]):
        with pytest.raises(RuntimeError, match="first must name for each row itself or one before it"):
            mlp(x, weights, problem, torch.tensor(first))
    with pytest.raises(RuntimeError, match="first must name for each row itself or one before it"):
        mlp(torch.zeros(3, 3).double(), weights, problem, torch.tensor([0, 0, 1]))
