"""nequip's plug-in: the model modifier ``enable_NequipFast``, for nequip-train, -compile and -prepare-lmp-mliap.

nequip imports this module by the entry point ``nequip.extension``, in the middle of its own import: what is needed of
nequip is not there yet, and an error would make nequip unusable. A modifier is looked for among the methods of a
model's modules. Those of a packaged model are copies made without this package, so ours is added to what nequip finds.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import nn

NAME = "enable_NequipFast"
_WHERE_NEQUIP_LOOKS = "nequip.model.modify_utils"


def _register(modify_utils: Any) -> None:
    """Let nequip find the modifier in every model."""
    from nequip.nn.model_modifier_utils import model_modifier

    class Modifiers:
        @model_modifier(persistent=False, private=False, supported_compile_modes=["aotinductor"])
        @classmethod
        def enable_NequipFast(cls, model: nn.Module) -> nn.Module:
            """Run the model on nequip_fast's kernels, for training and inference, on CPUs and GPUs."""
            from nequip_fast.integrations.accelerate import accelerate

            return accelerate(model, "train")  # nequip sets modes and gradients itself

    find = modify_utils.get_all_modifiers

    @functools.wraps(find)
    def get_all_modifiers(module: nn.Module, *arguments: Any, **named: Any) -> dict[str, Callable[..., Any]]:
        return {**find(module, *arguments, **named), NAME: Modifiers.enable_NequipFast}

    modify_utils.get_all_modifiers = get_all_modifiers


def _register_or_warn(modify_utils: ModuleType) -> None:
    try:
        _register(modify_utils)
    except (ImportError, AttributeError, TypeError) as error:
        warnings.warn(f"nequip_fast does not fit this nequip, which goes without {NAME}: {error}", stacklevel=2)


class _RegisterAfterImport(MetaPathFinder):
    """Waits for nequip to import its module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _WHERE_NEQUIP_LOOKS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register_or_warn(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if _WHERE_NEQUIP_LOOKS in sys.modules:
    _register_or_warn(sys.modules[_WHERE_NEQUIP_LOOKS])
else:
    sys.meta_path.insert(0, _RegisterAfterImport())
