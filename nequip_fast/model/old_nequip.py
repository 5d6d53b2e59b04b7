"""Models of nequip 0.5 and 0.6: a training folder's weights (``best_model.pth``), and deployed models.

Their network is :func:`nequip_fast.model.builders.OneHotNequIPModel`, whose maths has not changed since, in other
parametrisations: the radial network normalises its activations, the readout is a product of two linear maps, the Bessel
functions' roots contain π, and one scale multiplies energies and their shifts.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from e3nn.math import normalize2mom
from e3nn.o3 import Irreps
from torch import Tensor

from nequip_fast.errors import InputError, require
from nequip_fast.files import load_checkpoint
from nequip_fast.model import pickled
from nequip_fast.model.builders import build_model
from nequip_fast.model.graph_model import GraphModel
from nequip_fast.model.io import load_exactly
from nequip_fast.nn.activation_names import activation
from nequip_fast.nn.mlp import ScaledLinear

_ANCHORS = b"chemical_embedding", b"output_hidden_to_scalar"  # parts that no other kind of model has
_ANCHOR = "chemical_embedding.linear.weight"
_USELESS = re.compile(r"(^|\.)(output_mask|_w3j\w*|_tensor_constant\w*|_empty|bias|(tp|mul)\.weight)$|_compiled_main")
_BUILDERS = {
    "SimpleIrrepsConfig",
    "EnergyModel",
    "PerSpeciesRescale",
    "RescaleEnergyEtc",
    "ForceOutput",
    "StressForceOutput",
}
_INITIALISERS = re.compile(r"init|load_model_state", re.IGNORECASE)  # decide where training began, not the maths
_FIXED = {"edge_sh_normalization": "component", "edge_sh_normalize": True}
# settings of one layer or one class alone; those that name a setting of their own are known
_PREFIXED = re.compile(
    r"(layer\d+|convnet|conv|InteractionBlock|ConvNetLayer|RadialBasisEdgeEncoding|radial_basis|basis|cutoff|spharm_edges|"
    r"SphericalHarmonicEdgeAttrs|BesselBasis|PolynomialCutoff|AtomwiseLinear|one_hot|OneHotAtomEncoding|convolution)_"
)
_KNOWN = {"BesselBasis_trainable", "PolynomialCutoff_p", "conv_to_output_hidden_irreps_out"}


def is_old(path: str | os.PathLike[str]) -> bool:
    """Whether it looks like the file of such a model; executes nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(_only(archive, "data.pkl"))
    except (OSError, LookupError, zipfile.BadZipFile):
        return False
    return all(anchor in content for anchor in _ANCHORS)


def from_old_nequip(path: str | os.PathLike[str], config: str | os.PathLike[str] | None = None) -> GraphModel:
    """The model, in evaluation mode. No code and no pickle of the file is run.

    Args:
        path: ``best_model.pth`` or ``last_model.pth`` of a training folder, or what ``nequip-deploy`` made.
        config: the training's ``config.yaml``; by default the one beside ``path``. A deployed model has it inside.

    Raises:
        InputError: the file cannot be read, the settings are not there, or ask for what is not NequIP as it is today.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if not is_old(path):
        raise InputError(f"{path}: not a model of nequip 0.5 or 0.6")
    with zipfile.ZipFile(path) as archive:
        deployed = next((name for name in archive.namelist() if name.endswith("/extra/config")), None)
        if deployed is None:
            settings, weights = _settings_beside(path, config), dict(load_checkpoint(path))
        else:
            settings, weights = _settings(str(path), archive.read(deployed)), _deployed_weights(path, archive)
    named = _by_name(str(path), weights)
    model = build_model(_config(str(path), settings, named))
    load_exactly(model, _converted(str(path), model, named), str(path))
    return model.eval()


def _only(archive: zipfile.ZipFile, name: str) -> str:
    """The file of that name in the archive's one folder."""
    return next(each for each in archive.namelist() if each.count("/") == 1 and each.endswith(f"/{name}"))


def _deployed_weights(path: str | os.PathLike[str], archive: zipfile.ZipFile) -> dict[str, Tensor]:
    name = _only(archive, "data.pkl")
    try:
        module = pickled.load_module(archive.read(name))
        return pickled.state_dict(module, pickled.read_storages(archive, name.replace("data.pkl", "data"), ""))
    except Exception as error:  # damaged pickles fail with exceptions of every kind
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); deploy the model again") from None


def _settings_beside(path: str | os.PathLike[str], config: str | os.PathLike[str] | None) -> Mapping[str, Any]:
    where = Path(config) if config is not None else Path(path).with_name("config.yaml")
    if not where.is_file():
        raise InputError(
            f"{path}: holds weights alone, and there is no {where}; put the training's config.yaml beside it"
        )
    return _settings(str(where), where.read_bytes())


def _settings(where: str, text: bytes) -> Mapping[str, Any]:
    yaml = require("yaml", "train")

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined]
        """Tuples as lists; other objects of Python, which mean nothing here, as None."""

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", yaml.SafeLoader.construct_yaml_seq)
    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    try:
        settings = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: its settings are damaged ({str(error).splitlines()[0]})") from None
    if not isinstance(settings, Mapping):
        raise InputError(f"{where}: holds no settings of a model")
    return settings


def _by_name(where: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network by their names in it, and those of the rescaling around it."""
    anchors = [name for name in weights if name.endswith(_ANCHOR)]
    if len(anchors) != 1:
        raise InputError(f"{where}: holds {len(anchors)} models of nequip 0.5 or 0.6; one is needed")
    inside = anchors[0].removesuffix(_ANCHOR)
    named: dict[str, Tensor] = {}
    for name, value in weights.items():
        if not value.numel() or _USELESS.search(name):
            continue
        short = name.removeprefix(inside) if name.startswith(inside) else name.split(".")[-1]
        if short in named:
            raise InputError(f"{where}: its model is rescaled more than once ({name}), which is not supported")
        named[short] = value.detach()
    return named


def _config(where: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of ``OneHotNequIPModel``."""
    _check(where, settings)
    scalars, gates = _nonlinearities(where, settings)
    type_names = _type_names(where, settings)
    factor = weights.get("scale_by", torch.ones(())).double()
    scales, shifts = (
        (factor * weights.get(f"per_species_rescale.{kind}", torch.tensor(default)).double()).expand(len(type_names))
        for kind, default in (("scales", 1.0), ("shifts", 0.0))
    )
    return {
        "builder": "OneHotNequIPModel",
        "model_dtype": str(settings.get("model_dtype", settings.get("default_dtype", "float32"))),
        "type_names": type_names,
        "r_max": settings["r_max"],
        **_irreps(where, settings),
        "num_layers": settings.get("num_layers", 3),
        "radial_mlp_depth": settings.get("invariant_layers", 1),
        "radial_mlp_width": settings.get("invariant_neurons", 8),
        "radial_nonlinearity": scalars["e"],
        "num_bessels": settings.get("num_basis", 8),
        "bessel_trainable": settings.get("BesselBasis_trainable", True),
        "polynomial_cutoff_p": settings.get("PolynomialCutoff_p", 6),
        "avg_num_neighbors": _neighbours(where, settings),
        "per_type_energy_scales": dict(zip(type_names, scales.tolist(), strict=True)),
        "per_type_energy_shifts": dict(zip(type_names, shifts.tolist(), strict=True)),
        "convnet_sc": settings.get("use_sc", True),
        "convnet_resnet": settings.get("resnet", False),
        "convnet_nonlinearity_type": settings.get("nonlinearity_type", "gate"),
        "convnet_nonlinearity_scalars": scalars,
        "convnet_nonlinearity_gates": gates,
    }


def _check(where: str, settings: Mapping[str, Any]) -> None:
    """Refuse, by name, what is not the NequIP of today."""
    for builder in settings.get("model_builders") or ():
        name = str(builder).split(".")[-1]
        if name not in _BUILDERS and not _INITIALISERS.search(name):
            raise InputError(f"{where}: its model is made by {name!r}, which cannot be converted")
    for key, value in settings.items():
        if _PREFIXED.match(key) and key not in _KNOWN:
            raise InputError(f"{where}: its model has the setting {key!r} of a part alone, which cannot be converted")
        if key in _FIXED and value != _FIXED[key]:
            raise InputError(f"{where}: its model has {key}: {value}, and only {_FIXED[key]} can be converted")
    if "r_max" not in settings:
        raise InputError(f"{where}: its settings have no r_max; give the config.yaml of the training folder")


def _nonlinearities(where: str, settings: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Of scalars and of gates; where they are not given, the defaults of the version."""
    version = re.match(r"(\d+)\.(\d+)", str(settings.get("nequip_version", "")))
    if version is None and not {"nonlinearity_scalars", "nonlinearity_gates"} <= set(settings):
        raise InputError(
            f"{where}: without nequip_version the default nonlinearities are unknown; add it to the settings"
        )
    early = version is not None and (int(version[1]), int(version[2])) < (0, 6)
    scalars = {"e": "ssp", "o": "tanh"} if early else {"e": "silu", "o": "tanh"}
    gates = {"e": "ssp", "o": "abs"} if early else {"e": "silu", "o": "tanh"}
    return dict(settings.get("nonlinearity_scalars", scalars)), dict(settings.get("nonlinearity_gates", gates))


def _irreps(where: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """As given, or as ``SimpleIrrepsConfig`` makes them."""
    keys = "chemical_embedding_irreps_out", "feature_irreps_hidden", "irreps_edge_sh"
    given = [settings.get(key) for key in keys]
    if None in given:
        try:
            l_max, parity, features = (settings[key] for key in ("l_max", "parity", "num_features"))
        except KeyError as error:
            raise InputError(f"{where}: its settings have no {error}; give the config.yaml of the training") from None
        hidden = Irreps([(features, (l, p)) for p in ((1, -1) if parity else (1,)) for l in range(l_max + 1)])
        given = [f"{features}x0e", hidden, Irreps.spherical_harmonics(l_max, -1 if parity else 1)]
    embedding, hidden, harmonics = given
    if any(str(ir) != "0e" for _, ir in Irreps(embedding)):
        raise InputError(f"{where}: its chemical_embedding_irreps_out is {embedding}; it must be even scalars alone")
    return {
        "chemical_embedding": Irreps(embedding).dim,
        "feature_irreps_hidden": str(hidden),
        "irreps_edge_sh": str(Irreps.spherical_harmonics(harmonics) if isinstance(harmonics, int) else harmonics),
    }


def _neighbours(where: str, settings: Mapping[str, Any]) -> float:
    found = settings.get("avg_num_neighbors", "auto")
    if found == "auto":
        raise InputError(
            f"{where}: its avg_num_neighbors is 'auto' and not the number; take the config.yaml that nequip wrote into "
            "the folder of the training"
        )
    return 1.0 if found is None else float(found)


def _type_names(where: str, settings: Mapping[str, Any]) -> list[str]:
    """Chemical symbols in the order of the types."""
    symbols = require("ase.data", "md").atomic_numbers
    if settings.get("type_names"):
        names = [str(name) for name in settings["type_names"]]
    elif settings.get("chemical_symbol_to_type"):
        by_symbol = settings["chemical_symbol_to_type"]
        names = sorted(by_symbol, key=by_symbol.__getitem__)
    else:
        names = sorted(settings.get("chemical_symbols") or (), key=lambda name: symbols.get(name, 0))
    unknown = [name for name in names if name not in symbols]
    if unknown or not names:
        listed = ", ".join(names) or "not named"
        raise InputError(f"{where}: its types are {listed}; only types that are chemical symbols can be converted")
    return names


def _converted(where: str, model: Any, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by their names in our model.

    Raises:
        InputError: one is missing or has no place.
    """
    rest = dict(old)

    def take(name: str) -> Tensor:
        if name not in rest:
            raise InputError(f"{where} lacks {name}: it belongs to a model with other settings")
        return rest.pop(name)

    new = dict(model.state_dict())
    kind = model.config["radial_nonlinearity"]
    constant = normalize2mom(activation(kind)).cst
    new["bessel_encode.bessel_weights"] = take("radial_basis.basis.bessel_weights").double().unsqueeze(0) / math.pi
    new["chemical_embedding.weight"] = take(_ANCHOR).view(len(model.type_names), -1)
    for index, layer in enumerate(model.layers):
        name = f"layer{index}_convnet.conv"
        for part in ("linear_1", "linear_2", *(["sc"] if layer.conv.sc is not None else [])):
            new[f"{name}.{part}.weight"] = take(f"{name}.{part}.weight")
        linears = [
            (at, linear) for at, linear in enumerate(layer.conv.edge_mlp.mlp) if isinstance(linear, ScaledLinear)
        ]
        for depth, (at, linear) in enumerate(linears):
            matrix = take(f"{name}.fc.layer{depth}.weight")
            factor = (constant if depth else 1.0) / (matrix.shape[0] ** 0.5 * linear.factor)
            new[f"{name}.edge_mlp.mlp.{at}.weight"] = matrix * factor
    readout = model.per_atom_energy_readout.mlp_module.mlp[0]
    hidden = take("conv_to_output_hidden.linear.weight").double().view(readout.weight.shape[0], -1)
    energy = take("output_hidden_to_scalar.linear.weight").double().view(hidden.shape[1], 1)
    product = (hidden @ energy) / (hidden.shape[0] * hidden.shape[1]) ** 0.5 / readout.factor
    new["per_atom_energy_readout.mlp_module.mlp.0.weight"] = product.to(readout.weight.dtype)
    used = {"scale_by", "per_species_rescale.scales", "per_species_rescale.shifts"}
    if "shift_by" in rest:
        raise InputError(
            f"{where}: its model shifts the energy of a structure (global_rescale_shift), not of its atoms"
        )
    if unknown := sorted(rest.keys() - used):
        raise InputError(f"{where} has unknown {', '.join(unknown[:3])}: its model has parts that cannot be converted")
    return new
