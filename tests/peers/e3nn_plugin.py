"""pytest plugin for e3nn's tests on our modules, loaded by run_e3nn.py: leaves their TorchScript steps out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import e3nn.util.test
import pytest
import torch
from e3nn.util.jit import get_tracing_inputs

WITHOUT_TORCHSCRIPT = "without_torchscript"  # the property of a test that reaches the report

_compile_and_check = e3nn.util.test.assert_auto_jitable
_running: list[pytest.Item] = []


def _assert_auto_jitable(func: Any, *args: Any, strict_shapes: bool = True, **kwargs: Any) -> Any:
    """For our modules: what it asks of the compiled module asked of the module, which it returns in its place."""
    if not any(type(part).__module__.startswith("nequip_fast.") for part in func.modules()):
        return _compile_and_check(func, *args, strict_shapes=strict_shapes, **kwargs)
    _running[0].user_properties.append((WITHOUT_TORCHSCRIPT, "yes"))
    if strict_shapes and not hasattr(func, "_make_tracing_inputs"):
        _assert_refuses_bad_shapes(func)
    return func


def _assert_refuses_bad_shapes(module: Callable[..., Any]) -> None:
    try:
        [inputs] = get_tracing_inputs(module, n=1)
    except ValueError:  # no inputs to be guessed
        return
    for method, good in inputs.items():
        try:
            getattr(module, method)(*good)
        except (TypeError, RuntimeError):  # it wants more than features: weights, a graph
            continue
        for i in range(len(good)):
            bad = [tensor[..., : -random.randint(1, 3)] if j == i else tensor for j, tensor in enumerate(good)]
            with pytest.raises((RuntimeError, AssertionError)):
                getattr(module, method)(*bad)


e3nn.util.test.assert_auto_jitable = _assert_auto_jitable  # before any test file imports it


def pytest_collection() -> None:
    random.seed(0)  # some tests draw their parameters when they are imported
    torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    _running[:] = [item]
