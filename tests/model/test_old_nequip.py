"""Files of nequip 0.5 and 0.6: the same energies and forces, or a sentence that says what differs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import ase
import ase.build
import numpy as np
import pytest
import torch

from nequip_fast.data import graph_from_atoms
from nequip_fast.dtypes import default_dtype
from nequip_fast.engine import compile
from nequip_fast.errors import InputError
from nequip_fast.model import from_old_nequip, load_model, save_model
from tests.model.old_nequip_model import SETTINGS, TYPES, OldNequIP

yaml = pytest.importorskip("yaml")


@lru_cache
def old_model(parity: bool, sc: bool, resnet: bool) -> OldNequIP:
    with default_dtype(torch.float64):
        return OldNequIP(parity, sc, resnet)


def written(folder: Path, settings: dict[str, Any], **edits: torch.Tensor) -> tuple[OldNequIP, Path]:
    """A model and the files that a training would leave of it."""
    model = old_model(settings["parity"], settings.get("use_sc", True), settings.get("resnet", False))
    weights = {**model.state_dict(), **edits}
    if not settings.get("use_sc", True):
        weights = {name: value for name, value in weights.items() if ".sc." not in name}
    torch.save(weights, folder / "best_model.pth")
    (folder / "config.yaml").write_text(yaml.dump(settings))
    return model, folder / "best_model.pth"


def molecule() -> ase.Atoms:
    """Of hydrogen and oxygen, not a real one."""
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.symbols[[atom.index for atom in atoms if atom.symbol == "C"]] = "O"
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.mark.parametrize(
    "change", [{}, {"parity": False, "resnet": True}, {"use_sc": False}], ids=["parity", "resnet", "no_sc"]
)
def test_the_same_function(tmp_path: Path, change: dict[str, Any]) -> None:
    """Of the model, of the engine, and of the model's own file."""
    theirs, path = written(tmp_path, {**SETTINGS, **change})
    ours = from_old_nequip(path)
    assert ours.type_names == TYPES
    graph = graph_from_atoms(molecule(), TYPES, ours.r_max)
    energy, forces = theirs(graph["pos"], graph["edge_index"], graph["atom_types"])
    save_model(tmp_path / "model.safetensors", ours)
    for model in (ours, load_model(tmp_path / "model.safetensors")):
        found = model(graph)
        assert float(found["total_energy"]) == pytest.approx(float(energy), rel=1e-12)
        torch.testing.assert_close(found["forces"], forces, rtol=0, atol=1e-12)
    compiled = compile(path, radial="exact")(molecule())
    assert compiled.energy == pytest.approx(float(energy), rel=1e-12)
    np.testing.assert_allclose(compiled.forces, forces, rtol=0, atol=1e-12)


class Scripted(torch.nn.Module):
    """Names and weights of another module, for TorchScript, which saves them whatever is computed."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, Scripted(child))
        for name, value in module.named_parameters(recurse=False):
            self.register_parameter(name, value)
        for name, value in module.named_buffers(recurse=False):
            self.register_buffer(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_deployed_model_is_that_of_its_training(tmp_path: Path) -> None:
    theirs, path = written(tmp_path, SETTINGS)
    settings = yaml.dump({**SETTINGS, "_jit_fusion_strategy": [("DYNAMIC", 3)], "device": np.float64(1.0)})
    assert "!!python/tuple" in settings
    deployed = tmp_path / "elsewhere" / "deployed.pth"
    deployed.parent.mkdir()
    torch.jit.script(Scripted(theirs)).save(str(deployed), _extra_files={"config": settings, "nequip_version": "0.6.2"})
    expected, found = from_old_nequip(path), from_old_nequip(deployed)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert found.config == expected.config


def test_nothing_in_settings_is_run(tmp_path: Path) -> None:
    """nequip itself writes pickled tensors into config.yaml; they, and anything else of Python, are passed over."""
    _, path = written(tmp_path, SETTINGS)
    with open(tmp_path / "config.yaml", "a") as file:
        file.write(f"train_idcs: !!python/object/apply:os.system ['touch {tmp_path / 'run'}']\n")
    assert from_old_nequip(path).type_names == TYPES
    assert not (tmp_path / "run").exists()


def test_defaults_are_those_of_the_version(tmp_path: Path) -> None:
    settings = {name: value for name, value in SETTINGS.items() if not name.startswith("nonlinearity")}
    for version, scalars, gates in (
        ("0.5.6", ("ssp", "tanh"), ("ssp", "abs")),
        ("0.6.1", ("silu", "tanh"), ("silu", "tanh")),
    ):
        config = from_old_nequip(written(tmp_path, {**settings, "nequip_version": version})[1]).config
        assert tuple(config["convnet_nonlinearity_scalars"].values()) == scalars
        assert tuple(config["convnet_nonlinearity_gates"].values()) == gates
        assert config["radial_nonlinearity"] == scalars[0]
    del settings["nequip_version"]
    with pytest.raises(InputError, match="without nequip_version the default nonlinearities are unknown"):
        from_old_nequip(written(tmp_path, settings)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_builders": ["EnergyModel", "PairPotential"]}, "made by 'PairPotential'"),
        ({"model_builders": ["allegro.model.Allegro"]}, "made by 'Allegro'"),
        ({"layer1_use_sc": False}, "the setting 'layer1_use_sc' of a part alone"),
        ({"edge_sh_normalization": "norm"}, "edge_sh_normalization: norm"),
        ({"avg_num_neighbors": "auto"}, "avg_num_neighbors is 'auto'"),
        ({"chemical_symbols": ["O", "Hy"]}, "its types are Hy, O"),
        ({"invariant_neurons": 8}, "the settings differ"),
        ({"num_layers": 2}, "unknown layer2_convnet"),
        ({"num_layers": 4}, "lacks layer3_convnet"),
    ],
)
def test_what_cannot_be_converted(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_old_nequip(written(tmp_path, {**SETTINGS, **change})[1])


def test_files_that_lack_something(tmp_path: Path) -> None:
    _, path = written(tmp_path, SETTINGS, shift_by=torch.ones(()))
    with pytest.raises(InputError, match="global_rescale_shift"):
        from_old_nequip(path)
    _, path = written(tmp_path, SETTINGS)
    (tmp_path / "config.yaml").rename(tmp_path / "settings.yaml")
    with pytest.raises(InputError, match=r"there is no .*config\.yaml; put the training's config\.yaml beside it"):
        compile(path)
    assert from_old_nequip(path, tmp_path / "settings.yaml").type_names == TYPES
    with pytest.raises(InputError, match="no such file"):
        from_old_nequip(tmp_path / "none.pth")
    torch.save({"epoch": 3}, path)
    with pytest.raises(InputError, match=r"not a model of nequip 0\.5 or 0\.6"):
        from_old_nequip(path)
