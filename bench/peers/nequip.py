"""nequip itself, eager: the model people run today."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from bench.peers import ours
from bench.problems import ModelCase
from nequip_fast.dtypes import default_dtype

NAME = "nequip-eager"
FAMILY = "nequip"


def missing() -> str | None:
    """Needs the package."""
    return None if find_spec("nequip") else "nequip is not installed; run: pip install 'nequip_fast[bench]'"


def model(case: ModelCase, dtype: torch.dtype, device: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """nequip's preset with our model's weights, evaluation mode."""
    mine, data = ours.model(case, dtype, device)
    return twin(mine).to(device), data


def twin(mine: Any) -> torch.nn.Module:
    """nequip's model for the configuration and the weights of one of ours, evaluation mode."""
    import nequip.model
    from nequip.utils.global_state import set_global_state

    with default_dtype(torch.get_default_dtype()):  # it is part of nequip's global state
        set_global_state()  # nequip builds no model without it
        arguments = dict(mine.config)
        theirs = getattr(nequip.model, arguments.pop("builder"))(**arguments)
    # the keys are ours behind the prefix of nequip's wrappers
    prefix = next(name for name in theirs.state_dict() if name.endswith("type_embed.embed_module.weight"))
    prefix = prefix.removesuffix("type_embed.embed_module.weight")
    weights = {prefix + name: tensor for name, tensor in mine.state_dict().items()}
    _, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    return theirs.eval()
