"""Models on disk: one safetensors file with the configuration in its header. Loading executes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.files import Format, load_tensors, save_tensors
from nequip_fast.model.builders import build_model
from nequip_fast.model.graph_model import GraphModel

_FORMAT = Format("nequip_fast.model", 1, "a model", "upgrade it")


def save_model(path: str | os.PathLike[str], model: GraphModel, extra: Mapping[str, Any] | None = None) -> None:
    """Write ``model`` to ``path`` in one step.

    Args:
        extra: JSON-able facts to keep beside it; :func:`load_model` puts them in ``model.extra``.
    """
    header = {**_FORMAT.header(), "config": model.config, "extra": dict(extra or {})}
    save_tensors(path, model.state_dict(), header)


def load_model(path: str | os.PathLike[str]) -> GraphModel:
    """The model in ``path``, on the CPU and in evaluation mode.

    Raises:
        InputError: the file is missing, cut short, no model of ours, or written by a later version.
    """
    tensors, header = load_tensors(path)
    _FORMAT.check(path, header)
    if "config" not in header:
        raise InputError(f"{path}: its header has no model configuration; save the model again")
    model = build_model(header["config"])
    load_exactly(model, tensors, str(path))
    model.extra = dict(header.get("extra", {}))
    return model.eval()


def load_exactly(model: GraphModel, weights: Mapping[str, Tensor], source: str) -> None:
    """Load ``weights``, all of the model's and no others; ``source`` is named in the InputError otherwise."""
    own = model.state_dict()
    for kind, names in (("lacks", own.keys() - weights.keys()), ("has unknown", weights.keys() - own.keys())):
        if names:
            few = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
            raise InputError(f"{source} {kind} {few}: it belongs to a model with other settings")
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise InputError(
                f"{source}: {name} is {list(value.shape)}, but {list(own[name].shape)} here: the settings differ"
            )
    model.load_state_dict(dict(weights))
