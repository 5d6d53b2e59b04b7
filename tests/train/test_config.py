"""Reading the configuration, and one clear sentence for everything that can be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nequip_fast.errors import InputError
from nequip_fast.train.config import (
    TrainConfig,
    commented_yaml,
    differing_keys,
    leaves,
    make_parser,
    read_config,
    seconds,
)

MINIMAL: dict[str, Any] = {"data": {"file": "some.xyz"}}


def _file(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_one_line_file(tmp_path: Path) -> None:
    assert read_config(_file(tmp_path, "seed: 3"), ["data.file=x"]).seed == 3
    assert read_config(_file(tmp_path, "# nothing yet"), ["data.file=x"]).seed == 0


def test_file_and_overrides(tmp_path: Path) -> None:
    path = _file(tmp_path, "data:\n  file: some.xyz\ntraining:\n  learning_rate: 1e-3\n  loss:\n    energy: 2\n")
    config = read_config(path, ["training.max_epochs=7", "--training.loss.forces=3", "data.type_names=[H,O]"])
    assert config.training.learning_rate == 1e-3  # plain YAML would read this as text
    assert (config.training.max_epochs, config.training.loss.energy, config.training.loss.forces) == (7, 2.0, 3.0)
    assert config.data.type_names == ["H", "O"]


def test_the_override_wins() -> None:
    config = read_config({**MINIMAL, "training": {"max_epochs": 3}}, ["training.max_epochs=4"])
    assert config.training.max_epochs == 4


def test_entries_of_a_dictionary() -> None:
    config = read_config(MINIMAL, ["data.isolated_atom_energies.H=-13.6", "data.isolated_atom_energies.O=-430"])
    assert config.data.isolated_atom_energies == {"H": -13.6, "O": -430.0}


def test_round_trip(tmp_path: Path) -> None:
    config = read_config(MINIMAL, ["model.num_features=[8,4]", "training.max_time=2m", "model.parity=false"])
    assert read_config(config.to_dict()) == config
    assert read_config(_file(tmp_path, commented_yaml(config))) == config


def test_runs_do_not_share_their_parts() -> None:
    one, other = read_config(MINIMAL, ["training.loss.energy=5"]), read_config(MINIMAL)
    assert (one.training.loss.energy, other.training.loss.energy) == (5.0, 1.0)


@pytest.mark.parametrize(
    ("tree", "overrides", "sentence"),
    [
        ({"data": {"fil": "x"}}, [], "config: unknown key 'data.fil'; did you mean 'data.file'?"),
        ({**MINIMAL, "batch_size": 3}, [], "config: unknown key 'batch_size'; did you mean 'training.batch_size'?"),
        (MINIMAL, ["data.n_trian=3"], "command line: unknown key 'data.n_trian'; did you mean 'data.n_train'?"),
        (MINIMAL, ["training.max_epochs=ten"], "training.max_epochs: 'ten' is not an integer"),
        ({**MINIMAL, "training": {"max_epochs": "ten"}}, [], "training.max_epochs: 'ten' is not an integer"),
        (MINIMAL, ["device=gpu"], "device: 'gpu' is not one of auto, cpu, cuda"),
        (MINIMAL, ["model.num_features=a"], "model.num_features: 'a' is not an integer or a list of integers"),
        (MINIMAL, ["model.parity=maybe"], "model.parity: 'maybe' is not true or false"),
        ({"data": {"n_train": 3}}, [], "config: data.file is missing; give it in the file or as data.file=..."),
        ({"data": 3}, [], "config: data must hold keys with values, not 3"),
        (MINIMAL, ["training.ema_decay=1"], "training.ema_decay: 1.0 must lie in [0, 1), such as 0.99"),
        (MINIMAL, ["training.batch_size=0"], "training.batch_size: 0 must be above zero"),
        (MINIMAL, ["what"], "'what' is neither a configuration file nor an override like training.max_epochs=100"),
    ],
)  # fmt: skip
def test_one_sentence(tree: dict[str, Any], overrides: list[str], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config(tree, overrides)
    assert str(caught.value) == sentence


def test_missing_file_and_bad_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such configuration file"):
        read_config(tmp_path / "nowhere.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("data:\n  file: [x\n")
    with pytest.raises(InputError, match=r"bad\.yaml: not valid YAML at line"):
        read_config(path)


@pytest.mark.parametrize(
    ("text", "value"), [(90, 90.0), ("90", 90.0), ("90s", 90.0), ("2m", 120.0), ("1.5h", 5400.0), (None, None)]
)
def test_durations(text: Any, value: float | None) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["2x", "-3", "", "m", "1.2.3"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match="is not a duration"):
        seconds(text)


def test_every_key_is_explained() -> None:
    help_text = make_parser().format_help()
    for key, _, entry in leaves(TrainConfig):
        assert f"--{key}" in help_text
        assert entry.metadata["help"].strip(), f"{key} has no explanation"


def test_model_keys_are_arguments_of_the_builder() -> None:
    """No key that NequIPGNNModel would not take."""
    from nequip_fast.model.builders import NequIPGNNModel, _parameters

    ours = {key.removeprefix("model.") for key, *_ in leaves(TrainConfig) if key.startswith("model.")}
    assert ours - {"preset"} <= set(_parameters(NequIPGNNModel))


def test_differing_keys() -> None:
    one = {"seed": 0, "model": {"l_max": 1, "r_max": 5.0}}
    assert differing_keys(one, one) == []
    assert differing_keys(one, {"seed": 0, "model": {"l_max": 2, "r_max": 5.0}}) == ["model.l_max"]
    assert differing_keys(one, {"model": {"l_max": 1, "r_max": 5.0}, "new": 1}) == ["seed", "new"]
