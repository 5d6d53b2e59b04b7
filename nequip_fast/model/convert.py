"""Weights and configuration of nequip's own models."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from e3nn.o3 import Irreps
from torch import Tensor

from nequip_fast.errors import InputError, require
from nequip_fast.files import load_checkpoint
from nequip_fast.model import pickled
from nequip_fast.model.builders import build_model
from nequip_fast.model.graph_model import GraphModel
from nequip_fast.model.io import load_exactly

PACKAGE: Final = ".nequip.zip"
"""How names of files end that ``nequip-package`` makes."""

# what nequip's modules register besides weights: e3nn's masks and Clebsch-Gordan constants
_USELESS = re.compile(r"(^|\.)(output_mask|_w3j_\w+|_tensor_constant\w*|_empty|run_stage)$")
_ANCHOR = "type_embed.embed_module.weight"
_TARGETS = {f"nequip.model.{name}": name for name in ("NequIPGNNModel", "PresetNequIPGNNModel", "FullNequIPGNNModel")}
_OUR_TARGETS = "nequip_fast.model."
_ENERGY_ALONE = {  # of nequip before 0.16
    f"nequip.model.{name}EnergyModel": f"{name}Model" for name in ("NequIPGNN", "FullNequIPGNN")
}
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
    model = build_model(_config_of_checkpoint(path, checkpoint, trust))
    weights = _model_weights(checkpoint["state_dict"])
    if ema:
        weights |= _ema_weights(model, weights, checkpoint["state_dict"], path)
    load_exactly(model, _in_our_shapes(model, weights), str(path))
    return model.eval()


def from_nequip_package(path: str | os.PathLike[str], trust: bool = False) -> GraphModel:
    """The model of a package that ``nequip-package`` made (``.nequip.zip``), in evaluation mode.

    The code in the package is not run: settings and weights alone are read, see :mod:`nequip_fast.model.pickled`.

    Args:
        path: the package; made by nequip 0.8 or later.
        trust: of a model that was fine-tuned: unpickle objects in the checkpoint it started from.

    Raises:
        InputError: the file cannot be read, or holds a model that is not NequIP.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a readable package (truncated, damaged or of another kind)")
    with zipfile.ZipFile(path) as archive:
        config, folder = _config_of_package(path, archive, trust), _folder(archive)
        try:
            modules = pickled.load_module(archive.read(f"{folder}/model/eager_model.pkl"))
            read = pickled.read_storages(archive, f"{folder}/.data")
            weights = _model_weights(pickled.state_dict(modules, read))
            (type_names,) = (list(part.state["type_names"]) for part in modules.state["_modules"].values())
        except InputError:
            raise
        except Exception as error:  # damaged pickles and archives fail with exceptions of every kind
            raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); package the model again") from None
    model = build_model(config)
    if type_names != model.type_names:
        raise InputError(
            f"{path}: its model is for {', '.join(type_names)}, its settings for {', '.join(model.type_names)}: they "
            "do not belong together"
        )
    load_exactly(model, _in_our_shapes(model, weights), str(path))
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


def _in_our_shapes(model: GraphModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scales and shifts were rows before nequip 0.10, now they are columns."""
    own, kinds = model.state_dict(), (".scales", ".shifts")
    return {
        name: value.reshape(own[name].shape)
        if name.endswith(kinds) and name in own and value.numel() == own[name].numel()
        else value
        for name, value in weights.items()
    }


def _folder(archive: zipfile.ZipFile) -> str:
    """The one that all files of a package lie in."""
    return archive.namelist()[0].split("/")[0] if archive.namelist() else ""


def _config_of_package(path: str | os.PathLike[str], archive: zipfile.ZipFile, trust: bool) -> dict[str, Any]:
    yaml, folder = require("yaml", "train"), _folder(archive)
    try:
        metadata = yaml.safe_load(archive.read(f"{folder}/model/package_metadata.txt"))
        config = yaml.safe_load(archive.read(f"{folder}/model/config.yaml"))["training_module"]["model"]
        version = str(metadata["versions"]["nequip"])
    except (KeyError, TypeError, zipfile.BadZipFile, yaml.YAMLError):
        raise InputError(f"{path}: not a package of nequip 0.8 or later (no settings and metadata)") from None
    return _config(config, version, trust)


def _config_of_checkpoint(path: str | os.PathLike[str], checkpoint: Mapping[str, Any], trust: bool) -> dict[str, Any]:
    try:
        checkpoint["state_dict"]
        info = checkpoint["hyper_parameters"]["info_dict"]
        config, version = info["training_module"]["model"], str(info.get("versions", {}).get("nequip", ""))
    except (KeyError, TypeError):
        raise InputError(f"{path}: not a checkpoint of nequip 0.7 or later (no state_dict and info_dict)") from None
    return _config(config, version, trust)


def _config(config: Mapping[str, Any], version: str, trust: bool) -> dict[str, Any]:
    """The model configuration of this version of nequip as ours."""
    arguments = dict(config)
    target = str(arguments.pop("_target_", ""))
    if target == "nequip.model.modify":
        inner = _config(arguments["model"], version, trust)
        for modifier in arguments["modifiers"]:
            _apply_modifier(inner, modifier)
        return inner
    if target == "nequip.model.ModelFromCheckpoint":
        path = arguments["checkpoint_path"]
        return _config_of_checkpoint(path, load_checkpoint(path, trust), trust)
    if target == "nequip.model.ModelFromPackage":
        path = arguments["package_path"]
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path}: no such package; the model was fine-tuned from it, and its settings are there")
        with zipfile.ZipFile(path) as archive:
            return _config_of_package(path, archive, trust)
    if target.startswith(_OUR_TARGETS):
        return {"builder": target.removeprefix(_OUR_TARGETS), **arguments}
    builder = {**_TARGETS, **_ENERGY_ALONE}.get(target)
    if builder is None:
        raise InputError(f"the checkpoint's model is {target or 'unnamed'!r}; only {', '.join(_TARGETS)} can be read")
    if target in _ENERGY_ALONE:
        arguments["do_derivatives"] = False
    arguments.pop("compile_mode", None)  # how nequip ran it, not what it computes
    return _as_today({"builder": builder, **arguments}, version)


def _as_today(config: dict[str, Any], version: str) -> dict[str, Any]:
    """What the arguments meant in this version of nequip, in the words of the one that ours are."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    minor = (int(numbers[1]), int(numbers[2])) if numbers else (1, 0)
    if config.get("avg_num_neighbors") is None:
        config["avg_num_neighbors"] = 1.0
    for key in ("per_type_energy_scales", "per_type_energy_shifts"):
        if isinstance(config.get(key), (list, tuple)):
            config[key] = dict(zip(config["type_names"], config[key], strict=True))
    if config["builder"] == "NequIPGNNModel" and minor < (0, 17):
        config = {"radial_mlp_depth": 2, "radial_mlp_width": 64, **config}
    if config["builder"] == "NequIPGNNModel" and minor < (0, 16):
        return _with_irreps(**config)
    return config


def _with_irreps(
    builder: str,
    radial_mlp_depth: int,
    radial_mlp_width: int,
    num_layers: int = 4,
    l_max: int = 1,
    parity: bool = True,
    num_features: int = 32,
    **others: Any,
) -> dict[str, Any]:
    """``NequIPGNNModel`` before nequip 0.16: one parity after the other, and without parity all of them even."""
    hidden = [(num_features, (l, p)) for p in ((1, -1) if parity else (1,)) for l in range(l_max + 1)]
    return {
        "builder": f"Full{builder}",
        "irreps_edge_sh": str(Irreps.spherical_harmonics(l_max, -1 if parity else 1)),
        "type_embed_num_features": num_features,
        "feature_irreps_hidden": [str(Irreps(hidden))] * (num_layers - 1) + [f"{num_features}x0e"],
        "radial_mlp_depth": [radial_mlp_depth] * num_layers,
        "radial_mlp_width": [radial_mlp_width] * num_layers,
        **others,
    }


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
