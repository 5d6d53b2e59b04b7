"""NequIP at the speed of the hardware: operators, model, training and molecular dynamics."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from nequip_fast._info import info
from nequip_fast.ops.backend import get_backend, set_backend, use_backend

try:
    __version__ = version("nequip_fast")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from nequip_fast.engine import compile, load
    from nequip_fast.integrations.accelerate import accelerate
    from nequip_fast.kernels.tuning import tune

__all__ = ["__version__", "accelerate", "compile", "get_backend", "info", "load", "set_backend", "tune", "use_backend"]


def __getattr__(name: str) -> Any:
    """What needs more than the operators, imported when asked for."""
    if name == "accelerate":
        from nequip_fast.integrations.accelerate import accelerate

        return accelerate
    if name in ("compile", "load"):
        from nequip_fast import engine

        return getattr(engine, name)
    if name == "tune":
        from nequip_fast.kernels.tuning import tune

        return tune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
