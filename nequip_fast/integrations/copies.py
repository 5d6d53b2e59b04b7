"""Copies of models that ``copy.deepcopy`` alone does not copy, or not faithfully."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def copied(model: Model) -> Model:
    """A deep copy with the same state dict, which shares TorchScript's functions: those cannot be copied.

    e3nn copies its generated code by way of a pickle, whose constants have other names in the state dict; without its
    list of what was generated it is copied like everything else.
    """
    functions = [found for module in model.modules() for found in _script_functions(vars(module))]
    generated = {module: vars(module).pop("__codegen__", None) for module in model.modules()}
    try:
        result = copy.deepcopy(model, {id(function): function for function in functions})
    finally:
        _restore(generated.keys(), generated.values())
    _restore(result.modules(), generated.values())
    return result


def _restore(modules: Iterable[nn.Module], generated: Iterable[list[str] | None]) -> None:
    """Give each module its list of generated code again."""
    for module, names in zip(modules, generated, strict=True):
        if names is not None:
            vars(module)["__codegen__"] = list(names)


def _script_functions(value: Any) -> Iterator[torch.jit.ScriptFunction]:
    """Those in an attribute, or in the containers that it is made of."""
    if isinstance(value, torch.jit.ScriptFunction):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _script_functions(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _script_functions(item)
