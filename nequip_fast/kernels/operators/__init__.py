"""The operators in Triton, registered so that ``torch.compile``, ``torch.export`` and AOTInductor see their kernels.

Same signatures and meaning as the compiled ones in csrc/register.cpp, whose names begin without ``triton_``.
"""

from __future__ import annotations

from nequip_fast.kernels.operators import (
    conv,
    gate,
    hermite,
    linear,
    radial,
    segment_sum,
    spherical_harmonics,
    tensor_product,
)
from nequip_fast.ops import backend

MODULES = (conv, gate, hermite, linear, radial, segment_sum, spherical_harmonics, tensor_product)


def _tell_cache() -> None:
    """Name the kernels that a compiled graph depends on: torch looks for them in the operators' own source.

    Without it a graph compiled for a former version of a kernel would be taken for today's.
    """
    try:
        from torch._library.triton import triton_ops_to_kernels
    except ImportError:
        return
    for module in MODULES:
        for name in dir(module):
            if name.startswith("triton_") and hasattr(getattr(module, name), "_qualname"):
                triton_ops_to_kernels[f"nequip_fast::{name}"] = module.KERNELS


if not backend.INTERPRETED:
    _tell_cache()
