"""What a training run can be told: the configuration, its help texts, and reading it from YAML and command line.

Every key, its type, its default and its explanation stand once, in the dataclasses below; the parser, ``--help``,
``--print_config`` and the error messages are made from them.
"""

# ruff: noqa: RUF009  (option() is dataclasses.field with a help text)
from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nequip_fast.errors import InputError, nearest, require


def option(explanation: str, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that carries its own help text."""
    return field(default=default, metadata={"help": explanation})


@dataclass(kw_only=True)
class DataConfig:
    """Reference structures, and which of them are for training."""

    file: str = option("structures with energies and forces: extended XYZ or anything ASE reads")
    test_file: str | None = option("separate structures for the final test; otherwise n_test are set aside", None)
    energy_key: str = option("name of the energy in the file, eV", "energy")
    forces_key: str = option("name of the forces in the file, eV/Å", "forces")
    stress_key: str = option("name of the stress in the file, eV/Å³", "stress")
    n_train: int | None = option("structures to learn from (default: all that are left)", None)
    n_val: int | None = option("structures that steer the schedule and choose the best weights (default: 10 %)", None)
    n_test: int | None = option("structures kept for the final test (default: 10 %, none with test_file)", None)
    type_names: list[str] | None = option("elements of the model (default: those found in the file)", None)
    isolated_atom_energies: dict[str, float] | None = option(
        "energy of each lone atom, eV, used as shift (default: least squares over the training set)", None
    )


@dataclass(kw_only=True)
class ModelConfig:
    """The NequIP network: arguments of NequIPGNNModel, or a preset. What is not given takes nequip's default."""

    preset: Literal["S", "M", "L", "XL"] | None = option(
        "sizes of the published foundation models; keys given below win", None
    )
    r_max: float = option("cutoff radius, Å", 5.0)
    model_dtype: Literal["float32", "float64"] = option("precision of weights and features", "float32")
    num_layers: int | None = option("interaction layers (default: 4)", None)
    l_max: int | None = option("highest rotation order of features and spherical harmonics (default: 1)", None)
    parity: bool | None = option("also features of unnatural parity (default: true)", None)
    num_features: int | list[int] | None = option("channels, one number or one per l (default: 32)", None)
    type_embed_num_features: int | None = option("width of the element embedding (default: num_features)", None)
    radial_mlp_depth: int | None = option("hidden layers of the radial network (default: 1)", None)
    radial_mlp_width: int | None = option("width of the radial network (default: 128)", None)
    num_bessels: int | None = option("radial basis functions (default: 8)", None)
    bessel_trainable: bool | None = option("let the Bessel frequencies train (default: false)", None)
    polynomial_cutoff_p: int | None = option("exponent of the cutoff polynomial (default: 6)", None)
    per_edge_type_cutoff: dict[str, Any] | None = option(
        "shorter cutoffs per pair, {H: 3.0, O: {H: 3.0, O: 4.0}}", None
    )
    avg_num_neighbors: float | dict[str, float] | None = option("(default: counted in the training set)", None)
    per_type_energy_shifts: float | dict[str, float] | None = option("eV (default: see isolated_atom_energies)", None)
    per_type_energy_scales: float | dict[str, float] | None = option(
        "eV (default: RMS force of the training set)", None
    )
    per_type_energy_shifts_trainable: bool | None = option("(default: false)", None)
    per_type_energy_scales_trainable: bool | None = option("(default: false)", None)
    pair_potential: dict[str, Any] | None = option("pair term to add, such as ZBL (default: none)", None)


@dataclass(kw_only=True)
class LossConfig:
    """Weighted mean of the squared (or Huber) errors; only the ratios of the weights matter."""

    energy: float = option("weight of the energy per atom, eV", 1.0)
    forces: float = option("weight of the force components, eV/Å", 1.0)
    stress: float = option("weight of the stress components, eV/Å³", 0.0)
    kind: Literal["mse", "huber"] = option("squared error, or squared up to huber_delta and linear beyond", "mse")
    huber_delta: float = option("where Huber turns linear, eV or eV/Å", 0.01)


@dataclass(kw_only=True)
class TrainingConfig:
    """The optimisation."""

    batch_size: int = option("structures per step, over all devices", 5)
    max_epochs: int = option("passes over the training set", 1000)
    max_time: str | float | None = option("stop after this long: seconds, or 90s, 2m, 1.5h; ends cleanly", None)
    learning_rate: float = option("start value (highest value of the cosine schedule)", 0.01)
    optimizer: Literal["Adam", "AdamW"] = option("Adam, or AdamW with its decoupled weight decay", "Adam")
    weight_decay: float = option("pull of the weights towards zero", 0.0)
    gradient_clip: float | None = option("largest norm of the gradient", None)
    ema_decay: float = option("moving average of the weights that is validated and kept; 0 switches it off", 0.99)
    schedule: Literal["auto", "plateau", "cosine"] = option(
        "plateau: multiply by lr_factor when validation stalls; cosine: fall to zero over max_epochs or max_time, "
        "whichever is nearer its end; auto: cosine with max_time, else plateau",
        "auto",
    )
    warmup_steps: int = option("steps over which the learning rate rises from zero", 0)
    lr_patience: int = option("plateau: epochs without a better validation loss before the rate falls", 20)
    lr_factor: float = option("plateau: what the rate is multiplied by", 0.5)
    min_learning_rate: float = option("plateau: stop when the rate falls below this", 1e-6)
    early_stopping_patience: int | None = option("stop after so many epochs without a better validation loss", None)
    checkpoint_interval: float = option("seconds between resume points inside long epochs", 60.0)
    log_every: int = option("epochs between printed lines", 1)
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(kw_only=True)
class TrainConfig:
    """A whole run."""

    seed: int = option("of the weights, the split and the order of the data", 0)
    output: str = option("folder of everything the run writes", "runs/train")
    overwrite: bool = option("start again in a folder that holds a run", False)
    device: Literal["auto", "cpu", "cuda"] = option("auto: the GPU if there is one", "auto")
    devices: int = option("GPUs (or CPU processes) of this machine that share each batch", 1)
    threads: int | None = option("CPU threads per process (default: torch's choice); a resumed run keeps its own", None)
    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionary of plain values, for YAML and JSON."""
        return dataclasses.asdict(self)


def read_config(
    source: str | Path | Mapping[str, Any] | None = None, overrides: list[str] | None = None
) -> TrainConfig:
    """Configuration from a YAML file (or nested dictionary) and ``a.b=c`` overrides, which win.

    Raises:
        InputError: no such file, an unknown key (the nearest valid one is named), a value of the wrong type, a
            missing key.
    """
    jsonargparse = require("jsonargparse", "train")
    parser = make_parser()
    text = _yaml(source)
    arguments = [_as_flag(override) for override in overrides or []]
    try:
        if text is not None:
            tree = _load_yaml(text, source if isinstance(source, (str, Path)) else "config")
            check_keys(tree, str(source) if isinstance(source, (str, Path)) else "config")
            arguments = ["--config", text, *arguments] if tree else arguments
        namespace = parser.parse_args(arguments)
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _explain(error) from None
    config = _build(TrainConfig, namespace.as_dict())
    _check_values(config)
    return config


def make_parser() -> Any:
    """The jsonargparse parser of ``nequip-fast train``."""
    jsonargparse = require("jsonargparse", "train")
    parser = jsonargparse.ArgumentParser(
        prog="nequip-fast train",
        usage="nequip-fast train [CONFIG.yaml] [KEY=VALUE ...]",
        description="Train a NequIP potential on energies and forces.",
        epilog="Examples:  nequip-fast train config.yaml data.file=mine.xyz training.max_epochs=100\n"
        "           nequip-fast train data.file=mine.xyz training.max_time=2m --print_config > config.yaml\n"
        "Running the same command again resumes an interrupted run; overwrite=true starts it afresh.",
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,  # ours explains every key: commented_yaml
        formatter_class=_formatter(jsonargparse),
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    parser.add_argument("--print_config", action="store_true", help="print the configuration, explained, and exit")
    groups = {"": parser.add_argument_group("run")}
    for key, hint, entry in leaves(TrainConfig):
        section = key.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section, (_class_of(section).__doc__ or "").strip())
        required = entry.default is dataclasses.MISSING
        keywords: dict[str, Any] = {"required": True} if required else {"default": entry.default}
        groups[section].add_argument(f"--{key}", type=hint, help=entry.metadata["help"], **keywords)
    return parser


def commented_yaml(config: TrainConfig) -> str:
    """The configuration as YAML with the explanation of every key."""
    yaml = require("yaml", "train")
    lines: list[str] = []

    def add(part: Any, indent: str) -> None:
        for entry in dataclasses.fields(part):
            value = getattr(part, entry.name)
            if dataclasses.is_dataclass(value):
                lines.extend(["", f"{indent}{entry.name}:  # {(type(value).__doc__ or '').strip()}"])
                add(value, f"{indent}  ")
            else:
                text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
                text = text.strip().removesuffix("...").strip()
                lines.append(f"{indent}{entry.name}: {text}".ljust(44) + f"  # {entry.metadata['help']}")

    add(config, "")
    return "\n".join(lines) + "\n"


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Every key of the configuration: ``(dotted name, type, dataclass field)``."""
    hints = get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[entry.name]):
            yield from leaves(hints[entry.name], f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", hints[entry.name], entry


def check_keys(tree: Any, where: str, cls: type = TrainConfig, prefix: str = "") -> None:
    """Refuse keys that do not exist, naming the nearest one that does."""
    if not isinstance(tree, Mapping):
        raise InputError(f"{where}: {prefix.rstrip('.') or 'the file'} must hold keys with values, not {tree!r}")
    hints = get_type_hints(cls)
    for key, value in tree.items():
        if key not in hints:
            raise InputError(f"{where}: unknown key {prefix + str(key)!r}{_suggest(prefix + str(key))}")
        if dataclasses.is_dataclass(hints[key]):
            check_keys(value, where, hints[key], f"{prefix}{key}.")


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the keys whose values differ."""
    found = []
    for key in [*one, *(key for key in other if key not in one)]:
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found


def seconds(duration: str | float | None) -> float | None:
    """``90``, ``"90s"``, ``"2m"`` or ``"1.5h"`` in seconds."""
    if duration is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([smhd]?)\s*", str(duration))
    try:
        value = float(match[1]) if match else -1.0
    except ValueError:
        value = -1.0
    if match is None or value <= 0:
        raise InputError(f"training.max_time: {duration!r} is not a duration; write seconds, or 90s, 2m, 1.5h")
    return value * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _class_of(section: str) -> Any:
    cls: Any = TrainConfig
    for name in section.split("."):
        cls = get_type_hints(cls)[name]
    return cls


def _build(cls: Any, tree: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    values = {
        entry.name: _build(hints[entry.name], tree[entry.name])
        if dataclasses.is_dataclass(hints[entry.name])
        else tree[entry.name]
        for entry in dataclasses.fields(cls)
    }
    return cls(**values)


def _yaml(source: str | Path | Mapping[str, Any] | None) -> str | None:
    if source is None:
        return None
    if isinstance(source, Mapping):
        return str(require("yaml", "train").safe_dump(dict(source), sort_keys=False))
    if not Path(source).is_file():
        raise InputError(f"{source}: no such configuration file")
    return Path(source).read_text()


def _load_yaml(text: str, where: object) -> Any:
    yaml = require("yaml", "train")
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}: not valid YAML{line}: {getattr(error, 'problem', error)}") from None


def _as_flag(override: str) -> str:
    """``a.b=c`` -> ``--a.b=c``, with the key checked."""
    key, equals, _ = override.lstrip("-").partition("=")
    if not equals:
        raise InputError(f"{override!r} is neither a configuration file nor an override like training.max_epochs=100")
    valid = [name for name, *_ in leaves(TrainConfig)]
    inside_dictionary = any(key.startswith(f"{name}.") for name in valid)  # data.isolated_atom_energies.H=-13.6
    if key not in valid and not inside_dictionary:
        raise InputError(f"command line: unknown key {key!r}{_suggest(key)}")
    return f"--{override.lstrip('-')}"


def _suggest(key: str) -> str:
    """Nearest valid key: by the whole name, or by its last part when the section is wrong or missing."""
    valid = [name for name, *_ in leaves(TrainConfig)]
    by_last_part = {name.rpartition(".")[2]: name for name in valid}
    last = nearest(key.rpartition(".")[2], by_last_part)
    name = re.search(r"'(.*)'", last)
    same_section = nearest(key, valid)
    if name and (not same_section or name[1] == key.rpartition(".")[2]):
        return f"; did you mean {by_last_part[name[1]]!r}?"
    return same_section


def _explain(error: Exception) -> InputError:
    """jsonargparse's many lines as one sentence."""
    message = str(error)
    if match := re.search(r"arguments are required: (.*)", message):
        return InputError(f"config: {match[1].strip()} is missing; give it in the file or as {match[1].strip()}=...")
    key = match[1] if (match := re.search(r'[Kk]ey "([\w.]+)"', message)) else None
    hints = {name: hint for name, hint, _ in leaves(TrainConfig)}
    if key is None or key not in hints:
        return InputError(f"config: {' '.join(message.split())}")
    given = re.search(r"(?:Given value:|Got value:)\s*(.*)", message)
    value = f"{given[1]!r} is" if given else "the value is"
    return InputError(f"{key}: {value} not {_words(hints[key])}")


def _words(hint: Any) -> str:
    """A type as a person would say it."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(part) for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is list:
        return f"a list of {', '.join(_words(part).split(' ', 1)[1] + 's' for part in get_args(hint))}"
    if get_origin(hint) is dict:
        return "a dictionary like {H: 1.0}"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(hint, str(hint))


def _check_values(config: TrainConfig) -> None:
    """Values of the right type that make no sense."""
    positive = {
        "model.r_max": config.model.r_max,
        "training.batch_size": config.training.batch_size,
        "training.max_epochs": config.training.max_epochs,
        "training.learning_rate": config.training.learning_rate,
        "training.log_every": config.training.log_every,
        "devices": config.devices,
        "threads": config.threads,
        "data.n_train": config.data.n_train,
        "data.n_val": config.data.n_val,
    }
    for key, value in positive.items():
        if value is not None and not value > 0:
            raise InputError(f"{key}: {value} must be above zero")
    if not 0 <= config.training.ema_decay < 1:
        raise InputError(f"training.ema_decay: {config.training.ema_decay} must lie in [0, 1), such as 0.99")
    if not 0 < config.training.lr_factor < 1:
        raise InputError(f"training.lr_factor: {config.training.lr_factor} must lie between 0 and 1, such as 0.5")
    weights = config.training.loss
    if min(weights.energy, weights.forces, weights.stress) < 0 or weights.energy + weights.forces + weights.stress == 0:
        raise InputError(
            "training.loss: the weights of energy, forces and stress must be positive or zero, not all zero"
        )
    seconds(config.training.max_time)


def _formatter(jsonargparse: Any) -> type:
    import argparse

    class Formatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        """Keeps the line breaks of the examples."""

    return Formatter
