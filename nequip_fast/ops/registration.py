"""One compiled operator, made known to everything that differentiates or maps: autograd, torch.compile, torch.func."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from nequip_fast.ops import backend

if backend.NO_TRITON is None:
    from nequip_fast.kernels import operators  # noqa: F401  makes them known to torch

Operator = TypeVar("Operator")


def by_backend(register: Callable[[str], Operator]) -> dict[str, Operator]:
    """What ``register`` makes of the prefix of the operators' names, by backend: those in csrc have none."""
    compiled = register("")
    return {"cpu": compiled, "cuda": compiled, "triton": register("triton_")}


def compiled_operator(
    name: str,
    fake: Callable[..., Any],
    setup: Callable[..., None],
    backward: Callable[..., Any],
    vmap: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register the derivative of ``nequip_fast::name`` and its mapping over one more dimension.

    Args:
        fake: shapes of the results.
        setup: what is kept for the derivative, ``(ctx, inputs, output)``.
        backward: the derivative, ``(ctx, *cotangents)``.
        vmap: the mapping, ``(info, in_dims, *arguments)``. Without it the mapped dimension joins the leading ones:
            for operators whose tensors come first among the arguments, each [..., d] with the same leading dimensions,
            and then something that is no tensor; where anything later is mapped, a call for each entry.

    Returns:
        The operator, which takes the shortest way, since torch.library's takes as long as a small kernel: an autograd
        function with the same derivative, or none where nothing is to be differentiated. torch.func does not know what
        torch.library registers either and gets an autograd function of the kind it takes.
    """
    if not backend.compiled(name):
        return _not_built
    qualified, operator = f"nequip_fast::{name}", getattr(torch.ops.nequip_fast, name).default

    def leading(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
        first_constant = next(i for i, a in enumerate(arguments) if not isinstance(a, Tensor))
        constants = zip(arguments[first_constant:], in_dims[first_constant:], strict=True)
        if any(isinstance(a, Tensor) and dim is not None for a, dim in constants):
            return one_by_one(call, info, in_dims, *arguments)
        tensors = [
            a.expand(info.batch_size, *a.shape) if dim is None else a.movedim(dim, 0)
            for a, dim in zip(arguments[:first_constant], in_dims, strict=False)
        ]
        result = call(*tensors, *arguments[len(tensors) :])
        return result, (0,) * len(result) if isinstance(result, tuple) else 0

    def forward(ctx: Any, *arguments: Any) -> Any:
        result = below_autograd(*arguments)
        setup(ctx, arguments, result)
        return result

    def below_autograd(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    def autograd_function(**rules: Callable[..., Any]) -> Any:
        return type(name, (torch.autograd.Function,), {key: staticmethod(rule) for key, rule in rules.items()})

    vmap = vmap or leading
    torch.library.register_fake(qualified, fake)
    torch.library.register_autograd(qualified, backward, setup_context=setup)
    torch.library.register_vmap(qualified, vmap)
    eager = autograd_function(forward=forward, backward=backward)
    functional = autograd_function(forward=operator.__call__, setup_context=setup, backward=backward, vmap=vmap)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return operator(*arguments)
        if torch._C._are_functorch_transforms_active():
            return functional.apply(*arguments)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            return eager.apply(*arguments)
        return below_autograd(*arguments)

    return call


def _not_built(*arguments: Any) -> Any:
    raise AssertionError("backend.choose lets no call come here")


def one_by_one(
    operator: Callable[..., Any], info: Any, in_dims: Sequence[int | None], *arguments: Any
) -> tuple[Any, Any]:
    """A rule of vmap: one call of ``operator`` for each entry of the mapped dimension."""
    results = [
        operator(*(a if dim is None else a.select(dim, i) for a, dim in zip(arguments, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])


def goes_on_to(ctx: Any, tensor: int) -> bool:
    """Whether the backward pass now running needs the gradient of this one of the inputs that are tensors.

    ``ctx.needs_input_grad`` says whether any backward pass would.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[tensor][0])
    except RuntimeError:  # torch does not answer for a leaf that is itself what is differentiated by
        return True


def operator_with_vjp(name: str, fake: Callable[..., Any], definition: Callable[..., Tensor]) -> Callable[..., Any]:
    """Register ``nequip_fast::name``, a function of x, with its compiled derivative and the derivative of that.

        name(x, …),    name_vjp(x, g, …) = ∂(g · name)/∂x,    name_vjp_grad(x, g, c, …) = ∂(c · name_vjp)/∂(x, g)

    where … is what is not differentiated, the same for all three.

    Args:
        fake: shape of the result.
        definition: the same function in plain torch; derivatives from the third order on are its own.

    Returns:
        The operator, differentiable to any order, of x [..., d] with any leading dimensions.
    """

    def keep_first(tensors: int) -> Callable[..., None]:
        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.save_for_backward(*inputs[:tensors])
            ctx.constants = inputs[tensors:]

        return setup

    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return vjp(*ctx.saved_tensors, g, *ctx.constants), *[None] * len(ctx.constants)

    def vjp_backward(ctx: Any, c: Tensor) -> tuple[Tensor | None, ...]:
        return *vjp_grad(*ctx.saved_tensors, c, *ctx.constants), *[None] * len(ctx.constants)

    def vjp_grad_backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        third = _third_derivatives(lambda x: definition(x, *ctx.constants), ctx.saved_tensors, cotangents)
        return *third, *[None] * len(ctx.constants)

    def vjp_fake(x: Tensor, *_: Any) -> Tensor:
        return x.new_empty(x.shape)

    def vjp_grad_fake(x: Tensor, g: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return x.new_empty(x.shape), g.new_empty(g.shape)

    vjp_grad = compiled_operator(f"{name}_vjp_grad", vjp_grad_fake, keep_first(3), vjp_grad_backward)
    vjp = compiled_operator(f"{name}_vjp", vjp_fake, keep_first(2), vjp_backward)
    return compiled_operator(name, fake, keep_first(1), backward)


def _third_derivatives(
    definition: Callable[[Tensor], Tensor], tensors: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The derivative of ``(x, g, c) -> ∂(c · vjp(x, g)) / ∂(x, g)``, vjp that of a function defined in plain torch.

    Args:
        definition: the function of x.
        tensors: x, g and c.
        cotangents: of the two results.

    Returns:
        Gradients of x, g and c, differentiable.
    """

    def vjp(x: Tensor, g: Tensor) -> Tensor:
        return torch.func.vjp(definition, x)[1](g)[0]

    def vjp_grad(x: Tensor, g: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.vjp(vjp, x, g)[1](c)

    return torch.func.vjp(vjp_grad, *tensors)[1](tuple(cotangents))
