"""nequip itself, eager: the model people run today."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
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


def twin(mine: Any, compile_mode: str = "eager") -> torch.nn.Module:
    """nequip's model for the configuration and the weights of one of ours, evaluation mode."""
    import nequip.model
    from nequip.utils.global_state import set_global_state

    with default_dtype(torch.get_default_dtype()):  # it is part of nequip's global state
        set_global_state()  # nequip builds no model without it
        arguments = dict(mine.config) | {"compile_mode": compile_mode}
        theirs = getattr(nequip.model, arguments.pop("builder"))(**arguments)
    # the keys are ours behind the prefix of nequip's wrappers
    prefix = next(name for name in theirs.state_dict() if name.endswith("type_embed.embed_module.weight"))
    prefix = prefix.removesuffix("type_embed.embed_module.weight")
    weights = {prefix + name: tensor for name, tensor in mine.state_dict().items()}
    _, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    return theirs.eval()


def aotinductor(theirs: torch.nn.Module, graph: Mapping[str, Any], folder: Path) -> Callable[[], Any]:
    """A call of what ``nequip-compile --mode aotinductor --device cpu --target ase`` makes of the model.

    The arguments are those of nequip's script; there, too, the model comes with a graph of realistic size.
    """
    from nequip.nn.compile import DictInputOutputWrapper
    from nequip.scripts._compile_utils import AOTI_ASE_TARGET, COMPILE_TARGET_DICT
    from nequip.utils.aot import aot_export_model

    target = COMPILE_TARGET_DICT[AOTI_ASE_TARGET]
    dims = {key: torch.export.Dim(f"num_{key}s", min=2) for key in ("graph", "node", "edge")}
    data = target["data_settings"](dict(graph))
    path = folder / "model.nequip.pt2"
    aot_export_model(
        model=theirs,
        device=torch.device("cpu"),
        input_fields=target["input"],
        output_fields=target["output"],
        data=data,
        batch_map=target["batch_map_settings"](dims),
        output_path=str(path),
    )
    compiled = DictInputOutputWrapper(torch._inductor.aoti_load_package(str(path)), target["input"], target["output"])
    data = {name: data[name] for name in target["input"]}
    return lambda: compiled(data)
