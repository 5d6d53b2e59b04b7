"""NequIP at the speed of the hardware: operators, model, training and molecular dynamics."""

from importlib.metadata import PackageNotFoundError, version

from nequip_fast._info import info
from nequip_fast.ops.backend import get_backend, set_backend, use_backend

try:
    __version__ = version("nequip_fast")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "get_backend", "info", "set_backend", "use_backend"]
