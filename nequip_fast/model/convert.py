"""Weights and configuration of nequip's own models."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.files import load_checkpoint
from nequip_fast.model.builders import build_model
from nequip_fast.model.graph_model import GraphModel
from nequip_fast.model.io import load_exactly

# what nequip's modules register besides weights: e3nn's masks and Clebsch-Gordan constants
_USELESS = re.compile(r"(^|\.)(output_mask|_w3j_\w+|_tensor_constant\w*|_empty|run_stage)$")
_ANCHOR = "type_embed.embed_module.weight"
_TARGETS = {f"nequip.model.{name}": name for name in ("NequIPGNNModel", "PresetNequIPGNNModel", "FullNequIPGNNModel")}
# modifiers that change how, not what, nequip computes
_NEUTRAL_MODIFIERS = ("enable_OpenEquivariance", "enable_CuEquivariance", "enable_NequipFast")


def load_nequip_state_dict(model: GraphModel, state_dict: Mapping[str, Tensor]) -> None:
    """Load the weights of a live nequip model (or of its Lightning module) into ``model``.

    The prefix of the keys is found by itself; masks, constants and empty tensors are ignored.

    Raises:
        InputError: keys or shapes differ, so the two models are not the same.
    """
    load_exactly(model, _model_weights(state_dict), "the nequip state_dict")


def from_nequip_checkpoint(path: str | os.PathLike[str], trust: bool = False, ema: bool = True) -> GraphModel:
    """The model of a checkpoint written by ``nequip-train``, in evaluation mode.

    Args:
        path: Lightning checkpoint (``.ckpt``).
        trust: unpickle objects where the file holds more than tensors and plain containers. A pickle can run any
            code: say True only for files whose origin you trust.
        ema: take the moving average of the weights where there is one, as nequip does for inference.

    Raises:
        InputError: the file cannot be read, needs ``trust=True``, or holds a model that is not NequIP.
    """
    checkpoint = load_checkpoint(path, trust)
    try:
        state_dict, config = checkpoint["state_dict"], checkpoint["hyper_parameters"]["info_dict"]
        config = config["training_module"]["model"]
    except (KeyError, TypeError):
        raise InputError(f"{path}: not a checkpoint of nequip 0.7 or later (no state_dict and info_dict)") from None
    weights = _model_weights(state_dict)
    model = build_model(_config(config, trust))
    if ema:
        weights |= _ema_weights(model, weights, state_dict, path)
    load_exactly(model, weights, str(path))
    return model.eval()


def _model_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the one model in ``state_dict``, by their names in our model."""
    anchors = [key for key in state_dict if key.endswith(_ANCHOR)]
    if len(anchors) != 1:
        raise InputError(f"the state_dict holds {len(anchors)} NequIP models ({_ANCHOR!r}); one is needed")
    prefix = anchors[0].removesuffix(_ANCHOR)
    return {
        key.removeprefix(prefix): value
        for key, value in state_dict.items()
        if key.startswith(prefix) and value.numel() and not _USELESS.search(key)
    }


def _ema_weights(
    model: GraphModel, weights: Mapping[str, Tensor], state_dict: Mapping[str, Any], path: str | os.PathLike[str]
) -> dict[str, Tensor]:
    """Averaged weights by name; they are numbered in the order of the model's parameters."""
    count = sum(key.startswith("ema.ema_weight_") for key in state_dict)
    if not count:
        return {}
    if not state_dict.get("ema._extra_state", {}).get("is_holding_ema_weights", True):
        raise InputError(f"{path}: saved while weights and their average were swapped; use another checkpoint")
    parameters = dict(model.named_parameters())
    names = [name for name in weights if name in parameters]
    if len(names) != count:
        raise InputError(f"{path}: {count} averaged weights for a model of {len(names)} parameters; it is damaged")
    return {name: state_dict[f"ema.ema_weight_{i}"] for i, name in enumerate(names)}


def _config(config: Mapping[str, Any], trust: bool) -> dict[str, Any]:
    """nequip's model configuration as ours."""
    arguments = dict(config)
    target = str(arguments.pop("_target_", ""))
    if target == "nequip.model.modify":
        inner = _config(arguments["model"], trust)
        for modifier in arguments["modifiers"]:
            _apply_modifier(inner, modifier)
        return inner
    if target == "nequip.model.ModelFromCheckpoint":
        checkpoint = load_checkpoint(arguments["checkpoint_path"], trust)
        return _config(checkpoint["hyper_parameters"]["info_dict"]["training_module"]["model"], trust)
    if target not in _TARGETS:
        raise InputError(f"the checkpoint's model is {target or 'unnamed'!r}; only {', '.join(_TARGETS)} can be read")
    arguments.pop("compile_mode", None)  # how nequip ran it, not what it computes
    return {"builder": _TARGETS[target], **arguments}


def _apply_modifier(config: dict[str, Any], modifier: Mapping[str, Any]) -> None:
    arguments = dict(modifier)
    name = arguments.pop("modifier")
    if name in _NEUTRAL_MODIFIERS:
        return
    if name in ("enable_ForceStressOutput", "disable_ForceStressOutput"):
        config["do_derivatives"] = name.startswith("enable")
    elif name == "modify_PerTypeScaleShift":
        for quantity in ("scales", "shifts"):
            key = f"per_type_energy_{quantity}"
            old, new = config.get(key), arguments.get(quantity)
            config[key] = _per_type(old, config["type_names"]) | _per_type(new, config["type_names"])
            config[f"{key}_trainable"] = bool(arguments.get(f"{quantity}_trainable", False))
    else:
        raise InputError(f"the checkpoint's model has the modifier {name!r}, which cannot be converted")


def _per_type(values: Any, type_names: list[str]) -> dict[str, float]:
    if values is None:
        return {}
    return dict(values) if isinstance(values, Mapping) else dict.fromkeys(type_names, values)
