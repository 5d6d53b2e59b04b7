"""nequip's plug-in: the model modifier ``enable_NequipFast``, for nequip-train, -compile and -prepare-lmp-mliap, and
nequip-package for models of our builders.

nequip imports this module by the entry point ``nequip.extension``, in the middle of its own import: what is needed of
nequip is not there yet, and an error would make nequip unusable. A modifier is looked for among the methods of a
model's modules. Those of a packaged model are copies made without this package, so ours is added to what nequip finds.
A package with a model of ours holds settings and weights; that its code is installed, nequip-package has to be told.
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


def _register_modifier(modify_utils: Any) -> None:
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


def _register_package(package_utils: Any) -> None:
    """Leave our code, which is compiled in part, out of packages."""
    package_utils.register_libraries_as_external_for_packaging(extern_modules=["nequip_fast"])


# module of nequip -> what is done once it is there, and what nequip goes without if that fails
_REGISTRATIONS: dict[str, tuple[Callable[[Any], None], str]] = {
    "nequip.model.modify_utils": (_register_modifier, NAME),
    "nequip.scripts._package_utils": (_register_package, "packages of nequip_fast's models"),
}


def _register_or_warn(module: ModuleType, name: str) -> None:
    register, what = _REGISTRATIONS[name]
    try:
        register(module)
    except (ImportError, AttributeError, TypeError) as error:
        warnings.warn(f"nequip_fast does not fit this nequip, which goes without {what}: {error}", stacklevel=2)


class _RegisterAfterImport(MetaPathFinder):
    """Waits for nequip to import one of its modules."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register_or_warn(module, fullname)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


for _name in _REGISTRATIONS:
    if _name in sys.modules:
        _register_or_warn(sys.modules[_name], _name)
    else:
        sys.meta_path.insert(0, _RegisterAfterImport(_name))
