"""What runs where: versions, processor, and the backend of each operator with the reason for it."""

from __future__ import annotations

import platform
from typing import Any

import torch

from nequip_fast.ops import backend


def info() -> dict[str, Any]:
    """Versions, threads, instruction set, and for each operator which backend serves it and why.

    Returns:
        A dictionary of plain values: ``version``, ``torch``, ``python``, ``threads``, ``cpu_isa`` (what the
        kernels chose at run time), ``extension`` (its build, or why it is absent), ``cuda``, ``backend``
        (the choice in force), and ``operators``: name -> {device: "backend: reason"}.
    """
    from nequip_fast import __version__

    loaded = backend.NOT_LOADED is None
    return {
        "version": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cpu_isa": torch.ops.nequip_fast.cpu_isa() if loaded else None,
        "extension": torch.ops.nequip_fast.build_info() if loaded else backend.NOT_LOADED,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "backend": backend.get_backend(),
        "operators": {
            name: {device: _served_by(name, device) for device in ("cpu", "cuda")} for name in backend.KERNELS
        },
    }


def _served_by(operator: str, device: str) -> str:
    chosen = backend.get_backend()
    if chosen == "reference":
        return "reference: chosen by name"
    names = backend.DEVICES[device] if chosen == "auto" else (chosen,)
    reasons = {name: backend.why_not(operator, name, device, torch.float32) for name in names}
    for name, reason in reasons.items():
        if reason is None:
            return f"{name}: {'kernel compiled when first called' if name == 'triton' else 'compiled kernel'}"
    if chosen == "auto":
        return "reference: " + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return f"error: {chosen} was chosen by name, but {reasons[chosen]}"
