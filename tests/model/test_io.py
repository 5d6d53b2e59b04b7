"""Model files: round trip, and damaged or foreign files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nequip_fast.errors import InputError
from nequip_fast.files import save_tensors
from nequip_fast.model import build_model, load_model, save_model
from nequip_fast.nn import ZBL
from tests.model.model_cases import CASES, call, config, inputs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", ["preset_S", "full", "zbl", "bessel", "graph_field", "no_scale_shift"])
def test_round_trip(case: str, dtype: str, tmp_path: Path) -> None:
    model = build_model(config(case, dtype)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    save_model(tmp_path / "model.safetensors", model, extra={"epoch": 3})
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.extra == {"epoch": 3}
    assert not loaded.training
    for name in ("config", "type_names", "r_max", "model_dtype"):
        assert getattr(loaded, name) == getattr(model, name)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    expected, found = call(model, inputs("crystals")), call(loaded, inputs("crystals"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("case", CASES)
def test_config_is_json_and_rebuilds_the_model(case: str) -> None:
    model = build_model(config(case))
    again = build_model(json.loads(json.dumps(model.config)))
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_zbl_module_as_argument_is_kept_in_the_config() -> None:
    term = ZBL(type_names=["C", "H", "O"], chemical_species=["C", "H", "O"], polynomial_cutoff_p=8)
    model = build_model({**config("zbl"), "pair_potential": term})
    expected = build_model(config("zbl"))
    assert model.config == json.loads(json.dumps(model.config))
    assert torch.equal(
        call(model.eval(), inputs("crystals"))["forces"], call(expected.eval(), inputs("crystals"))["forces"]
    )


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, build_model(config("parity")))
    content = path.read_bytes()
    for length in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="truncated or damaged"):
            load_model(path)


def test_missing_foreign_and_later_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "none.safetensors")
    path = tmp_path / "other.safetensors"
    save_tensors(path, {"a": torch.zeros(2)}, {"format": "nequip_fast.training"})
    with pytest.raises(InputError, match="not a model"):
        load_model(path)
    save_tensors(path, {"a": torch.zeros(2)}, {"format": "nequip_fast.model", "version": 99})
    with pytest.raises(InputError, match="version 99"):
        load_model(path)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = build_model(config("parity"))
    model.config["num_features"] = 4
    save_model(path, model)
    with pytest.raises(InputError, match="the settings differ"):
        load_model(path)
