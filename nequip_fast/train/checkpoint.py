"""The resume point: everything a run needs to go on exactly, as safetensors + JSON. No pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nequip_fast.errors import InputError
from nequip_fast.files import load_tensors, save_tensors

_VERSION = 1


def save_state(
    path: str | os.PathLike[str],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    plain: Mapping[str, Any],
) -> None:
    """Write weights, optimiser, random generators, further ``tensors`` and JSON-able values in one step.

    Tensors are named ``<module>.<parameter>``, ``optimizer.<index>.<name>``, ``rng.cpu``, ``rng.cuda.<index>`` and
    ``extra.<name>``.
    """
    everything: dict[str, Tensor] = {f"extra.{name}": tensor for name, tensor in tensors.items()}
    for prefix, module in modules.items():
        everything |= {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
    state = optimizer.state_dict()
    optimizer_plain: dict[str, dict[str, Any]] = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                everything[f"optimizer.{index}.{name}"] = value
            else:
                optimizer_plain.setdefault(str(index), {})[name] = value
    everything["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        everything |= {f"rng.cuda.{index}": rng for index, rng in enumerate(torch.cuda.get_rng_state_all())}
    header = {
        "version": _VERSION,
        "plain": dict(plain),
        "optimizer": {"param_groups": state["param_groups"], "state": optimizer_plain},
    }
    save_tensors(path, everything, header)


def read_plain(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON-able values of a resume point.

    Raises:
        InputError: the file is damaged, or of another format version.
    """
    _, header = load_tensors(path)
    return dict(_checked(path, header)["plain"])


def load_state(
    path: str | os.PathLike[str], modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put everything back in place; returns the further tensors and the JSON-able values."""
    everything, header = load_tensors(path)
    _checked(path, header)
    for prefix, module in modules.items():
        module.load_state_dict(_below(everything, f"{prefix}."))
    state: dict[int, dict[str, Any]] = {int(i): dict(entry) for i, entry in header["optimizer"]["state"].items()}
    for key, tensor in _below(everything, "optimizer.").items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": header["optimizer"]["param_groups"]})
    torch.set_rng_state(everything["rng.cpu"])
    generators = _below(everything, "rng.cuda.")
    if generators and torch.cuda.device_count() == len(generators):
        torch.cuda.set_rng_state_all([generators[str(index)] for index in range(len(generators))])
    return _below(everything, "extra."), dict(header["plain"])


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _checked(path: str | os.PathLike[str], header: dict[str, Any]) -> dict[str, Any]:
    if header.get("version") != _VERSION or "plain" not in header:
        raise InputError(f"{path}: not a resume point of this version of nequip_fast; restart with overwrite=true")
    return header
