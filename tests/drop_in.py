"""What the tests of drop-ins for e3nn share: one comparison of two modules, derivatives included, in float64."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-12  # relative to the largest element, as in the design; second derivatives 1e-10


def random_like(shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Inputs that ask for gradients."""
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def derivatives(function: Callable[..., Any], inputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, first derivatives, and derivatives of the first ones' squares."""
    outputs = function(*inputs)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    by = [tensor for tensor in (*inputs, *parameters) if tensor.requires_grad]
    scalar = sum((y * torch.cos(torch.arange(y.numel())).view_as(y) + y.square()).sum() for y in outputs)
    first = _gradients(scalar, by)
    return [*outputs, *first, *_gradients(sum(g.square().sum() for g in first), by)]


def _gradients(scalar: Any, by: Sequence[Tensor]) -> Sequence[Tensor]:
    """Zeros where ``scalar`` depends on nothing."""
    if not (isinstance(scalar, Tensor) and scalar.requires_grad):
        return [torch.zeros_like(tensor) for tensor in by]
    return torch.autograd.grad(scalar, by, create_graph=True, materialize_grads=True)


def assert_same_values(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape, k
        if a.numel():
            size = max(float(b.detach().abs().max()), 1.0)
            assert float((a - b).detach().abs().max()) <= 10 * TOLERANCE * size, k


def assert_drop_in(
    ours: Callable[..., nn.Module],
    theirs: Callable[..., nn.Module],
    inputs: Sequence[Tensor],
    *args: Any,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """Both classes made with the same arguments and seed are the same: text, state, numbers drawn, values, gradients.

    Returns:
        the two modules, for further questions.
    """
    torch.manual_seed(1)
    module = ours(*args, **kwargs)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    oracle = theirs(*args, **kwargs)
    assert torch.equal(drawn, torch.rand(1)), "another number of random numbers was drawn"
    assert repr(module) == repr(oracle)
    state, expected = module.state_dict(), oracle.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert state[name].dtype == value.dtype, name
        torch.testing.assert_close(state[name], value, rtol=0, atol=1e-14, msg=name)
    for parameter in module.parameters():  # so that biases and scales, constant at the start, count
        nn.init.normal_(parameter)
    oracle.load_state_dict(module.state_dict())
    module.load_state_dict(oracle.state_dict())
    expected_values = derivatives(oracle, inputs, list(oracle.parameters()))
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_same_values(derivatives(same, inputs, list(same.parameters())), expected_values)
    return module, oracle


def assert_compiles(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Whole graph, dynamic batch: torch.compile with backward, and torch.export with another batch size."""
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    parameters = list(module.parameters())
    expected = module(*inputs)
    assert_same_values([compiled(*inputs)], [expected])
    by = [tensor for tensor in (*inputs, *parameters) if tensor.requires_grad]
    if expected.requires_grad:
        gradients = torch.autograd.grad(expected.square().sum(), by)
        assert_same_values(torch.autograd.grad(compiled(*inputs).square().sum(), by), gradients)
    batch = torch.export.Dim("batch", min=2)
    detached = tuple(tensor.detach() for tensor in inputs)
    program = torch.export.export(module, detached, dynamic_shapes=tuple({0: batch} for _ in inputs))
    doubled = tuple(torch.cat([tensor, tensor]) for tensor in detached)
    assert_same_values([program.module()(*doubled)], [module(*doubled)])
