"""nequip itself, eager: the model people run today."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from bench.peers import ours
from bench.problems import ModelCase

NAME = "nequip"


def missing() -> str | None:
    """Needs the package."""
    return None if find_spec("nequip") else "nequip is not installed; run: pip install 'nequip_fast[bench]'"


def model(case: ModelCase, dtype: torch.dtype, device: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """nequip's preset with our model's weights, evaluation mode."""
    from nequip.model import PresetNequIPGNNModel

    mine, data = ours.model(case, dtype, device)
    theirs = PresetNequIPGNNModel(**ours.model_arguments(case, dtype))
    return with_weights_of(theirs, mine).eval().to(device), data


def with_weights_of(theirs: torch.nn.Module, mine: torch.nn.Module) -> torch.nn.Module:
    """Load our state_dict into nequip's model; the keys are the same but for nequip's wrapper."""
    prefix = next(name for name in theirs.state_dict() if name.endswith("type_embed.embed_module.weight"))
    prefix = prefix.removesuffix("type_embed.embed_module.weight")
    weights = {prefix + name: tensor for name, tensor in mine.state_dict().items()}
    _, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    return theirs
