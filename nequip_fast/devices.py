"""Where to compute: what users may say, and what it means on this machine."""

from __future__ import annotations

import torch

from nequip_fast.errors import InputError


def choose_device(device: str | torch.device) -> torch.device:
    """``auto`` (CUDA if there is one), ``cpu``, ``cuda``, or any torch device.

    Raises:
        InputError: no such device, or a GPU is asked for and torch finds none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"device {device!r} is not one of auto, cpu, cuda, cuda:0, ...") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device}: torch finds no GPU here; use device cpu or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device}: torch finds {torch.cuda.device_count()} GPU(s) here, counted from 0")
    return chosen
