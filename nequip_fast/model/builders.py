"""The model builders, with the names, arguments, defaults and initial weights of nequip 0.19."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from e3nn.o3 import Irreps

from nequip_fast.errors import InputError, nearest
from nequip_fast.model.graph_model import GraphModel
from nequip_fast.model.nequip import NequIP
from nequip_fast.nn import ZBL

_DTYPES: Final = {"float32": torch.float32, "float64": torch.float64}
_PRESET_DEFAULTS: Final = {
    "parity": False,
    "type_embed_num_features": 32,
    "radial_mlp_depth": 1,
    "radial_mlp_width": 128,
}
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "S": {"num_layers": 2, "l_max": 1, "num_features": [128, 64]},
    "M": {"num_layers": 4, "l_max": 2, "num_features": [128, 64, 32]},
    "L": {"num_layers": 6, "l_max": 3, "num_features": [128, 64, 32, 32]},
    "XL": {"num_layers": 6, "l_max": 4, "num_features": [320, 96, 64, 32, 32]},
}
_ACTIVATIONS: Final = {"e": "silu", "o": "tanh"}


def PresetNequIPGNNModel(preset: str, **kwargs: Any) -> GraphModel:
    """:func:`NequIPGNNModel` with the sizes of the NequIP foundation potentials (arXiv:2607.28461).

    Args:
        preset: S, M, L or XL (see :data:`PRESETS`); all are without parity, with 32 type features and one hidden
            radial layer of 128.
        kwargs: arguments of :func:`NequIPGNNModel`; they override the preset.
    """
    name = str(preset).upper()
    if name not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    model = NequIPGNNModel(**{**_PRESET_DEFAULTS, **PRESETS[name], **kwargs})
    model.config = _config("PresetNequIPGNNModel", {"preset": name, **kwargs})
    return model


def NequIPGNNModel(
    num_layers: int = 4,
    l_max: int = 1,
    parity: bool = True,
    num_features: int | Sequence[int] = 32,
    type_embed_num_features: int | None = None,
    radial_mlp_depth: int = 1,
    radial_mlp_width: int = 128,
    **kwargs: Any,
) -> GraphModel:
    """NequIP with the same hyperparameters in every layer.

    Args:
        num_layers: number of convolution layers.
        l_max: highest degree of features and spherical harmonics.
        parity: keep both parities of every degree, not only those of the spherical harmonics.
        num_features: channels, one number or one for each degree 0 … l_max.
        type_embed_num_features: length of the type embedding; None: ``num_features`` of l = 0.
        radial_mlp_depth, radial_mlp_width: hidden layers of the radial network.
        kwargs: ``seed``, ``model_dtype``, ``type_names``, ``r_max``, ``avg_num_neighbors`` and the other arguments of
            :func:`FullNequIPGNNModel`.

    Raises:
        InputError: an argument is unknown, missing or out of range.
    """
    given = {
        "num_layers": num_layers,
        "l_max": l_max,
        "parity": parity,
        "num_features": num_features,
        "type_embed_num_features": type_embed_num_features,
        "radial_mlp_depth": radial_mlp_depth,
        "radial_mlp_width": radial_mlp_width,
        **kwargs,
    }
    if num_layers < 1:
        raise InputError(f"num_layers={num_layers}: at least one layer is needed")
    if l_max < 0:
        raise InputError(f"l_max={l_max}: the highest degree must not be negative")
    muls = [num_features] * (l_max + 1) if isinstance(num_features, int) else list(num_features)
    if len(muls) != l_max + 1:
        raise InputError(f"num_features={muls} must have l_max + 1 = {l_max + 1} entries, one per degree")
    if min(muls) < 1:
        raise InputError(f"num_features={muls}: every degree needs at least one channel; lower l_max instead")
    parities = [(1, -1) if parity else ((-1) ** degree,) for degree in range(l_max + 1)]
    hidden = Irreps([(muls[degree], (degree, p)) for degree in range(l_max + 1) for p in parities[degree]])
    _check_arguments(NequIPGNNModel, given)
    model = FullNequIPGNNModel(
        irreps_edge_sh=Irreps.spherical_harmonics(l_max),
        type_embed_num_features=muls[0] if type_embed_num_features is None else type_embed_num_features,
        feature_irreps_hidden=[hidden] * (num_layers - 1) + [Irreps([(muls[0], (0, 1))])],
        radial_mlp_depth=[radial_mlp_depth] * num_layers,
        radial_mlp_width=[radial_mlp_width] * num_layers,
        **kwargs,
    )
    model.config = _config("NequIPGNNModel", given)
    return model


def FullNequIPGNNModel(
    *,
    seed: int,
    model_dtype: str,
    type_names: Sequence[str],
    r_max: float,
    radial_mlp_depth: Sequence[int],
    radial_mlp_width: Sequence[int],
    feature_irreps_hidden: Sequence[str | Irreps],
    irreps_edge_sh: int | str | Irreps,
    type_embed_num_features: int,
    categorical_graph_field_embed: Sequence[Mapping[str, Any]] | None = None,
    readout_mlp_hidden_layers_depth: int = 0,
    readout_mlp_hidden_layers_width: int | None = None,
    readout_mlp_nonlinearity: str | None = "silu",
    per_edge_type_cutoff: Mapping[str, float | Mapping[str, float]] | None = None,
    num_bessels: int = 8,
    bessel_trainable: bool = False,
    polynomial_cutoff_p: float = 6,
    avg_num_neighbors: float | Mapping[str, float] | None = None,
    per_type_energy_scales: float | Mapping[str, float] | None = None,
    per_type_energy_shifts: float | Mapping[str, float] | None = None,
    per_type_energy_scales_trainable: bool | None = False,
    per_type_energy_shifts_trainable: bool | None = False,
    pair_potential: ZBL | Mapping[str, Any] | None = None,
    do_derivatives: bool = True,
    convnet_sc: bool = True,
    learnable_shift: bool = False,
    convnet_resnet: bool = False,
    convnet_nonlinearity_type: str = "gate",
    convnet_nonlinearity_scalars: Mapping[str, str] = _ACTIVATIONS,
    convnet_nonlinearity_gates: Mapping[str, str] = _ACTIVATIONS,
    compile_mode: str = "eager",
) -> GraphModel:
    """NequIP with every hyperparameter per layer.

    Args:
        seed: of the initial weights; the same seed gives nequip's weights.
        model_dtype: precision of the network, ``float32`` or ``float64``; geometry and energies are float64.
        type_names: name of each atom type, as a rule chemical symbols.
        r_max: cutoff radius, Å.
        radial_mlp_depth, radial_mlp_width: hidden layers of the radial network, per layer.
        feature_irreps_hidden: irreps of the features, per layer; the last has scalars only.
        irreps_edge_sh: spherical harmonics on the edges, or their l_max.
        type_embed_num_features: length of the type embedding.
        categorical_graph_field_embed: integers per structure to embed as well, see
            :class:`nequip_fast.nn.TypeEmbedding`.
        readout_mlp_hidden_layers_depth, readout_mlp_hidden_layers_width, readout_mlp_nonlinearity: the readout;
            width None: that of the last layer.
        per_edge_type_cutoff: shorter cutoffs by type of centre and neighbour, ``{"H": 2.0, "C": {"H": 3.0}}``.
        num_bessels, bessel_trainable: radial basis.
        polynomial_cutoff_p: exponent of the envelope.
        avg_num_neighbors: number, or one per type, that normalises the sum over neighbours.
        per_type_energy_scales, per_type_energy_shifts: eV, number or one per type; and whether they are trained.
        pair_potential: :class:`nequip_fast.nn.ZBL`, or nequip's config of it
            (``{"_target_": "nequip.nn.pair_potential.ZBL", "chemical_species": […], "units": "metal"}``).
        do_derivatives: give forces and stress.
        convnet_sc, convnet_resnet: self-connections and residual sums in all layers but the first.
        learnable_shift: have them in the first layer too; the energy of an isolated atom is then learned.
        convnet_nonlinearity_type: ``gate`` or ``norm``.
        convnet_nonlinearity_scalars, convnet_nonlinearity_gates: activation by parity, keys ``e`` and ``o``.
        compile_mode: only ``eager``.

    Raises:
        InputError: an argument is missing or out of range.
    """
    given = dict(locals())
    if model_dtype not in _DTYPES:
        raise InputError(f"model_dtype must be float32 or float64, not {model_dtype!r}")
    if compile_mode != "eager":
        raise InputError(
            f"compile_mode={compile_mode!r} is not supported; use 'eager', its kernels are compiled already"
        )
    type_names = [str(name) for name in type_names]
    if not type_names or not all(name.isalnum() for name in type_names) or len(set(type_names)) != len(type_names):
        raise InputError(f"type_names={type_names}: distinct names of letters and digits are needed, at least one")
    if not r_max > 0:
        raise InputError(f"r_max={r_max}: the cutoff must be positive")
    if not len(radial_mlp_depth) == len(radial_mlp_width) == len(feature_irreps_hidden) > 0:
        raise InputError("radial_mlp_depth, radial_mlp_width and feature_irreps_hidden need one entry per layer each")
    if avg_num_neighbors is None:
        raise InputError("avg_num_neighbors is missing; nequip_fast.data.statistics computes it from the data")
    if learnable_shift and not (convnet_sc or convnet_resnet):
        raise InputError("learnable_shift needs convnet_sc or convnet_resnet; switch one of them on")
    hidden = [Irreps(irreps) for irreps in feature_irreps_hidden]
    if any(ir.l > 0 for _, ir in hidden[-1]):
        raise InputError(f"the last layer must give scalars only, but feature_irreps_hidden ends with {hidden[-1]}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # and no other device's
        model = NequIP(
            type_names=type_names,
            model_dtype=_DTYPES[model_dtype],
            r_max=float(r_max),
            per_edge_type_cutoff=per_edge_type_cutoff,
            irreps_edge_sh=(
                Irreps.spherical_harmonics(irreps_edge_sh)
                if isinstance(irreps_edge_sh, int)
                else Irreps(irreps_edge_sh)
            ),
            feature_irreps_hidden=hidden,
            radial_mlp_depth=radial_mlp_depth,
            radial_mlp_width=radial_mlp_width,
            type_embed_num_features=type_embed_num_features,
            categorical_graph_field_embed=categorical_graph_field_embed,
            num_bessels=num_bessels,
            bessel_trainable=bessel_trainable,
            polynomial_cutoff_p=polynomial_cutoff_p,
            avg_num_neighbors=avg_num_neighbors,
            readout_depth=readout_mlp_hidden_layers_depth,
            readout_width=readout_mlp_hidden_layers_width,
            readout_nonlinearity=readout_mlp_nonlinearity,
            scales=per_type_energy_scales,
            shifts=per_type_energy_shifts,
            scales_trainable=bool(per_type_energy_scales_trainable),
            shifts_trainable=bool(per_type_energy_shifts_trainable),
            pair_potential=_pair_potential(pair_potential, type_names, _DTYPES[model_dtype]),
            convnet_sc=convnet_sc,
            convnet_resnet=convnet_resnet,
            learnable_shift=learnable_shift,
            nonlinearity_type=convnet_nonlinearity_type,
            nonlinearity_scalars=convnet_nonlinearity_scalars,
            nonlinearity_gates=convnet_nonlinearity_gates,
            do_derivatives=do_derivatives,
        )
    model.config = _config("FullNequIPGNNModel", given)
    return model


def OneHotNequIPModel(
    *,
    model_dtype: str,
    type_names: Sequence[str],
    r_max: float,
    irreps_edge_sh: str | Irreps,
    chemical_embedding: int,
    feature_irreps_hidden: str | Irreps,
    num_layers: int,
    radial_mlp_depth: int,
    radial_mlp_width: int,
    radial_nonlinearity: str,
    num_bessels: int,
    bessel_trainable: bool,
    polynomial_cutoff_p: float,
    avg_num_neighbors: float,
    per_type_energy_scales: float | Mapping[str, float] | None,
    per_type_energy_shifts: float | Mapping[str, float] | None,
    convnet_sc: bool,
    convnet_resnet: bool,
    convnet_nonlinearity_type: str,
    convnet_nonlinearity_scalars: Mapping[str, str],
    convnet_nonlinearity_gates: Mapping[str, str],
    do_derivatives: bool = True,
) -> GraphModel:
    """NequIP as nequip before 0.7 had it: self-connections see the one-hot type, in the first layer too.

    Args:
        chemical_embedding: number of features, made from the one-hot type by a linear map, that the first layer gets.
        feature_irreps_hidden: of every layer, the last one included; the energy is read from the even scalars.
        radial_nonlinearity: of the radial networks.

    The other arguments are those of :func:`FullNequIPGNNModel`, the same in every layer.
    """
    given = dict(locals())
    model = NequIP(
        type_names=list(type_names),
        model_dtype=_DTYPES[model_dtype],
        r_max=float(r_max),
        per_edge_type_cutoff=None,
        irreps_edge_sh=Irreps(irreps_edge_sh),
        feature_irreps_hidden=[Irreps(feature_irreps_hidden)] * num_layers,
        radial_mlp_depth=[radial_mlp_depth] * num_layers,
        radial_mlp_width=[radial_mlp_width] * num_layers,
        type_embed_num_features=len(type_names),
        categorical_graph_field_embed=None,
        num_bessels=num_bessels,
        bessel_trainable=bessel_trainable,
        polynomial_cutoff_p=polynomial_cutoff_p,
        avg_num_neighbors=avg_num_neighbors,
        readout_depth=0,
        readout_width=None,
        readout_nonlinearity=None,
        scales=per_type_energy_scales,
        shifts=per_type_energy_shifts,
        scales_trainable=False,
        shifts_trainable=False,
        pair_potential=None,
        convnet_sc=convnet_sc,
        convnet_resnet=convnet_resnet,
        learnable_shift=True,
        nonlinearity_type=convnet_nonlinearity_type,
        nonlinearity_scalars=convnet_nonlinearity_scalars,
        nonlinearity_gates=convnet_nonlinearity_gates,
        do_derivatives=do_derivatives,
        radial_nonlinearity=radial_nonlinearity,
        chemical_embedding=chemical_embedding,
    )
    one_hot = model.type_embed.embed_module.weight.requires_grad_(False)
    one_hot.copy_(torch.eye(len(one_hot)))
    model.config = _config("OneHotNequIPModel", given)
    return model


_BUILDERS: Final[dict[str, Callable[..., GraphModel]]] = {
    builder.__name__: builder
    for builder in (NequIPGNNModel, PresetNequIPGNNModel, FullNequIPGNNModel, OneHotNequIPModel)
}


def build_model(config: Mapping[str, Any]) -> GraphModel:
    """The model described by ``config``: a builder's name under ``builder`` and its arguments.

    Raises:
        InputError: no such builder, or an argument is unknown, missing or out of range.
    """
    arguments = dict(config)
    name = str(arguments.pop("builder", "NequIPGNNModel"))
    if name not in _BUILDERS:
        raise InputError(f"unknown model builder {name!r}{nearest(name, _BUILDERS)} ({', '.join(_BUILDERS)})")
    _check_arguments(_BUILDERS[name], arguments)
    return _BUILDERS[name](**arguments)


def _check_arguments(builder: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Every given argument exists and every mandatory one is given."""
    parameters = _parameters(builder)
    for argument in given:
        if argument not in parameters:
            raise InputError(f"{builder.__name__} has no argument {argument!r}{nearest(argument, parameters)}")
    missing = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    missing = [name for name in missing if name not in given]
    if missing:
        raise InputError(f"{builder.__name__} needs {', '.join(missing)}; add {'it' if len(missing) == 1 else 'them'}")


def _parameters(builder: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a builder, those it hands on to the next one included."""
    own = inspect.signature(builder).parameters
    named = {name: parameter for name, parameter in own.items() if parameter.kind is not parameter.VAR_KEYWORD}
    if builder is PresetNequIPGNNModel:
        return {**_parameters(NequIPGNNModel), **named}
    if builder is NequIPGNNModel:
        inner = _parameters(FullNequIPGNNModel)
        del inner["feature_irreps_hidden"], inner["irreps_edge_sh"]  # follow from num_features, l_max and parity
        return {**inner, **named}
    return named


def _pair_potential(
    description: ZBL | Mapping[str, Any] | None, type_names: Sequence[str], dtype: torch.dtype
) -> ZBL | None:
    if description is None:
        return None
    arguments = dict(description.config if isinstance(description, ZBL) else description)
    target = str(arguments.pop("_target_", ""))
    if target.split(".")[-1] != "ZBL":
        raise InputError(f"pair_potential: only ZBL is supported, not {target or 'a dict without _target_'!r}")
    valid = ("chemical_species", "units", "polynomial_cutoff_p")
    for argument in arguments:
        if argument not in valid:
            raise InputError(f"pair_potential: ZBL has no argument {argument!r}{nearest(argument, valid)}")
    if "chemical_species" not in arguments:
        raise InputError("pair_potential: ZBL needs chemical_species, the chemical symbol of each type; add it")
    return ZBL(type_names=type_names, dtype=dtype, **arguments)


def _config(builder: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"builder": builder, **{name: _plain(value) for name, value in arguments.items()}}


def _plain(value: Any) -> Any:
    """``value`` in JSON's types."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, ZBL):
        return value.config
    if isinstance(value, Irreps):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_plain(entry) for entry in value]
    return value.item()  # numpy and torch scalars
