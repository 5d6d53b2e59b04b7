"""Gate: every activation against torch over a wide range, layouts against e3nn, derivatives to third order."""

import e3nn.nn
import pytest
import torch
from e3nn.o3 import Irreps

from nequip_fast.errors import InputError
from nequip_fast.ops import GateProblem, GateSegment, gate, use_backend
from nequip_fast.ops.description import describe
from nequip_fast.ops.gate import ACTIVATIONS, gate_reference
from tests.helpers import KERNELS, operator, relative_error

SMOOTH = [name for name in ACTIVATIONS if name not in ("abs", "relu")]
SILU, TANH = torch.nn.functional.silu, torch.tanh


def scalars(activation: str, mul: int, constant: float = 1.0) -> GateProblem:
    return GateProblem([GateSegment(0, -1, 0, mul, 1, activation, constant)], mul)


def awkward() -> GateProblem:
    """Every dimension with and without vectors of its own, odd multiplicities, two elements that nothing reads."""
    segments, at, out = [], 2, 0
    for k, (mul, dim) in enumerate([(7, 1), (33, 1), (16, 3), (5, 3), (17, 5), (3, 7), (20, 9), (4, 11)]):
        gated = k > 0
        name = list(ACTIVATIONS)[k]
        segments.append(GateSegment(at, at + mul * dim if gated else -1, out, mul, dim, name, 0.5 + k))
        at, out = at + mul * dim + (mul if gated else 0), out + mul * dim
    return GateProblem(segments, at)


def many() -> GateProblem:
    """More segments than one launch of a CUDA kernel takes, each with the activation after that of the one before."""
    names = [list(ACTIVATIONS)[k % len(ACTIVATIONS)] for k in range(40)]
    return GateProblem([GateSegment(2 * k, -1, 2 * k, 2, 1, name, 1.0) for k, name in enumerate(names)], 80)


def derivatives(x, g, c, problem):
    """out, its gradient with cotangent g, and the gradients of that with cotangent c."""
    out = gate(x, problem)
    (first,) = torch.autograd.grad(out, x, g, create_graph=True)
    return out, first, *torch.autograd.grad(first, (x, g), c, allow_unused=True, materialize_grads=True)


def operands(problem, rows=5, dtype=torch.float64):
    shapes = (rows, problem.dim_in), (rows, problem.dim_out), (rows, problem.dim_in)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_activations(isa, activation, dtype, bound):
    """Values, slopes and bends over ±1000, near zero, at denormal numbers: the relative error is that of rounding."""
    x = torch.cat([torch.linspace(-40, 40, 8001), torch.logspace(-45, 3, 500), -torch.logspace(-45, 3, 500)]).to(dtype)
    x = torch.cat([x, x.new_tensor([0.0, 1000.0, -1000.0])])
    x = x[(x - 20).abs() > 1e-3]  # torch's softplus jumps at 20
    values = []
    for backend, exact in ((KERNELS, dtype), ("reference", torch.float64)):
        with use_backend(backend):
            one = torch.ones(1, x.numel(), dtype=exact, requires_grad=True)
            v = x[None].to(exact, copy=True).requires_grad_()
            values.append(derivatives(v, one, one.detach(), scalars(activation, len(x))))
    for ours, theirs in zip(*values, strict=True):
        known = theirs.isfinite()  # torch's second derivative of mish is NaN at large x
        assert ours.isfinite().all()
        torch.testing.assert_close(ours[known].double(), theirs[known], rtol=20 * bound, atol=bound)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_infinite_and_nan(isa, activation):
    """NaN stays NaN, infinities have torch's limits."""
    x = torch.tensor([[torch.nan, torch.inf, -torch.inf, 1.0]])
    x = x[:, : 2 if activation in ("silu", "mish") else 4]  # torch's are NaN at −∞
    torch.testing.assert_close(
        gate(x, scalars(activation, x.shape[1])), gate_reference(x, scalars(activation, x.shape[1])), equal_nan=True
    )


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("layout", [awkward, many])
def test_every_layout_on_every_instruction_set(isa, layout, dtype, bound):
    """All dimensions, odd multiplicities; what is not read has gradient zero."""
    problem = layout()
    tensors = operands(problem, 5, dtype)
    results = []
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            results.append(derivatives(*tensors, problem))
    for ours, theirs in zip(*results, strict=True):
        assert relative_error(ours, theirs) < bound
    assert layout is many or not results[0][1][:, :2].any()


@pytest.mark.parametrize(
    ("scalars", "act_scalars", "gates", "act_gates", "gated"),
    [
        ("16x0o", [TANH], "32x0o", [TANH], "16x1e+16x1o"),
        ("4x0e+3x0o", [SILU, TANH], "2x0o+5x0e", [TANH, torch.sigmoid], "3x1o+4x2e"),
        ("3x0e+4x0e", [SILU, TANH], "5x0e+2x0e", [SILU, torch.sigmoid], "1x2e+1x1o+2x1o+3x0o"),
        ("5x0e", [SILU], "", [], ""),
    ],
)
def test_equals_e3nn(scalars, act_scalars, gates, act_gates, gated):
    """e3nn's input order, constants and output."""
    torch.set_default_dtype(torch.float64)
    theirs = e3nn.nn.Gate(scalars, act_scalars, gates, act_gates, gated)
    names = {SILU: "silu", TANH: "tanh", torch.sigmoid: "sigmoid"}

    def named(functions):
        return [(names[f], float(e3nn.math.normalize2mom(f).cst)) for f in functions]

    problem = GateProblem.from_irreps(
        Irreps(scalars), named(act_scalars), Irreps(gates), named(act_gates), Irreps(gated)
    )  # fmt: skip
    assert (problem.dim_in, problem.dim_out) == (theirs.irreps_in.dim, theirs.irreps_out.dim)
    x = torch.randn(7, problem.dim_in)
    assert relative_error(gate(x, problem), theirs(x)) < 1e-13


def test_finite_differences():
    """gradcheck and gradgradcheck of the compiled operators."""
    segments = [GateSegment(3, -1, 0, 2, 1, "silu", 1.7), GateSegment(5, 0, 2, 3, 3, "tanh", 0.8)]
    problem = GateProblem(segments, 14)
    x = torch.randn(2, 14, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: gate(v, problem), x)
    assert torch.autograd.gradgradcheck(lambda v: gate(v, problem), x)


def test_third_derivative():
    """It leaves the kernels for plain torch, and is right all the same."""
    problem, results = awkward(), []
    x = torch.randn(2, problem.dim_in, dtype=torch.float64, requires_grad=True)
    for backend in (KERNELS, "reference"):
        with use_backend(backend):
            value = gate(x, problem).sin().sum()
            for _ in range(3):
                (gradient,) = torch.autograd.grad(value, x, create_graph=True)
                value = gradient.square().sum() / 100
        results.append(gradient)
    assert relative_error(*results) < 1e-12


def test_transforms():
    """opcheck; one graph for any number of rows; vmap; torch.func; leading dimensions, strides and no rows."""
    problem = awkward()
    x, g, c = operands(problem)
    for count, name in enumerate(("gate", "gate_vjp", "gate_vjp_grad"), start=1):
        torch.library.opcheck(operator(name), (*(x, g, c)[:count], problem.text))
    compiled = torch.compile(lambda v: gate(v, problem).sin(), fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (3, 5):
        v = x[:rows].detach().requires_grad_()
        (ours,) = torch.autograd.grad(compiled(v).sum(), v)
        assert torch.equal(ours, torch.autograd.grad(gate(v, problem).sin().sum(), v)[0])
    out = gate(x, problem)
    assert torch.equal(torch.vmap(lambda v: gate(v, problem))(x), out)
    assert torch.equal(torch.func.grad(lambda v: (gate(v, problem) * g).sum())(x), torch.autograd.grad(out, x, g)[0])
    assert torch.equal(gate(x.T.contiguous().T, problem), out)
    assert torch.equal(gate(x.reshape(5, 1, -1), problem).reshape(out.shape), out)
    assert gate(x[:0], problem).shape == (0, problem.dim_out)


def test_threads_change_nothing():
    """Bit for bit the same on one thread and on two."""
    problem = awkward()
    tensors, results = operands(problem, 500 if KERNELS == "cpu" else 9), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(derivatives(*tensors, problem))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_bad_input_is_named():
    """One sentence each."""
    with pytest.raises(InputError, match="no activation 'silo'; did you mean 'silu'"):
        scalars("silo", 3)
    with pytest.raises(InputError, match="read parts of the input twice"):
        GateProblem([GateSegment(0, 2, 0, 3, 1, "silu", 1.0)], 6)
    with pytest.raises(InputError, match="do not follow each other"):
        GateProblem([GateSegment(0, -1, 1, 3, 1, "silu", 1.0)], 6)
    with pytest.raises(InputError, match=r"x must be \[..., 3\] for this problem, got \[2, 4\]"):
        gate(torch.zeros(2, 4), scalars("silu", 3))
    with pytest.raises(InputError, match="2 gated irreps need as many gate scalars, got 1"):
        GateProblem.from_irreps(Irreps(""), [], Irreps("0e"), [("silu", 1.0)], Irreps("2x1o"))
    with pytest.raises(RuntimeError, match="the segments do not fit rows of 2 and 3 elements"):
        torch.ops.nequip_fast.gate(torch.zeros(1, 2), describe((2, 3), [(0, -1, 0, 3, 1, 0, 1.0)]))
    with pytest.raises(RuntimeError, match=r"x must be a (CPU )?tensor \[..., 3\]"):
        torch.ops.nequip_fast.gate(torch.zeros(1, 2), describe((3, 3), [(0, -1, 0, 3, 1, 0, 1.0)]))
