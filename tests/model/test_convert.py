"""A checkpoint that nequip-train wrote gives nequip's own predictions."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from nequip_fast.engine import compile
from nequip_fast.errors import InputError
from nequip_fast.model import build_model, from_nequip_checkpoint, from_nequip_package, load_nequip_state_dict
from tests.model.model_cases import build_oracle, call, config, graph, nequip_globals, relative_error

TYPES = ["H", "O"]
TRAINING = """
run: [train]
data:
  _target_: nequip.data.datamodule.ASEDataModule
  seed: 1
  split_dataset: {{file_path: {folder}/data.xyz, train: 4, val: 2}}
  transforms:
    - {{_target_: nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper, model_type_names: [H, O]}}
    - {{_target_: nequip.data.transforms.NeighborListTransform, r_max: 4.0}}
  train_dataloader: {{_target_: torch.utils.data.DataLoader, batch_size: 2}}
  val_dataloader: {{_target_: torch.utils.data.DataLoader, batch_size: 2}}
  stats_manager:
    _target_: nequip.data.CommonDataStatisticsManager
    dataloader_kwargs: {{batch_size: 2}}
    type_names: [H, O]
trainer:
  _target_: lightning.Trainer
  accelerator: cpu
  max_epochs: 2
  logger: false
  enable_progress_bar: false
  num_sanity_val_steps: 0
  callbacks:
    - {{_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: {folder}, save_last: true}}
training_module:
  _target_: nequip.train.EMALightningModule
  loss: {{_target_: nequip.train.EnergyForceLoss}}
  val_metrics: {{_target_: nequip.train.EnergyForceMetrics}}
  optimizer: {{_target_: torch.optim.Adam, lr: 0.01}}
  model:
    _target_: nequip.model.modify
    modifiers:
      - {{modifier: modify_PerTypeScaleShift, shifts: {{O: -3.5}}, shifts_trainable: true}}
    model:
      _target_: nequip.model.NequIPGNNModel
      seed: 1
      model_dtype: float32
      type_names: [H, O]
      r_max: 4.0
      num_layers: 3
      l_max: 1
      num_features: [7, 5]
      radial_mlp_width: 16
      bessel_trainable: true
      avg_num_neighbors: ${{training_data_stats:num_neighbors_mean}}
      per_type_energy_scales: ${{training_data_stats:per_type_forces_rms}}
      per_type_energy_shifts: ${{training_data_stats:per_atom_energy_mean}}
      pair_potential:
        _target_: nequip.nn.pair_potential.ZBL
        chemical_species: [H, O]
        units: metal
hydra: {{run: {{dir: {folder}/hydra}}}}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of nequip-train on six water molecules."""
    folder = tmp_path_factory.mktemp("nequip")
    rng = np.random.default_rng(0)
    frames = []
    for k in range(6):
        atoms = ase.build.molecule("H2O")
        atoms.rattle(0.1, seed=k)
        atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()), forces=rng.normal(size=(3, 3)))
        frames.append(atoms)
    write(folder / "data.xyz", frames)
    (folder / "config.yaml").write_text(TRAINING.format(folder=folder))
    _run("train", folder, "-cp", str(folder), "-cn", "config")
    return folder / "last.ckpt"


@pytest.fixture(scope="module")
def package(checkpoint: Path) -> Path:
    """What nequip-package makes of the checkpoint."""
    path = checkpoint.parent / "model.nequip.zip"
    _run("package", checkpoint.parent, "build", str(checkpoint), str(path))
    return path


def _run(script: str, folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", f"nequip.scripts.{script}", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _edited(path: Path, target: Path, edit: Any) -> Path:
    content = torch.load(path, weights_only=False)
    edit(content)
    torch.save(content, target)
    return target


@pytest.mark.parametrize("ema", [True, False])
def test_real_checkpoint(checkpoint: Path, ema: bool) -> None:
    from nequip.model.saved_models.checkpoint import ModelFromCheckpoint

    with nequip_globals():
        theirs = ModelFromCheckpoint(str(checkpoint))["sole_model"].eval()
    if not ema:
        weights = torch.load(checkpoint, weights_only=False)["state_dict"]
        prefix = "model.sole_model."
        theirs.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    ours = from_nequip_checkpoint(checkpoint, ema=ema)
    assert not ours.training
    assert ours.type_names == TYPES
    assert ours.r_max == 4.0
    assert ours.config["per_type_energy_shifts"]["O"] == -3.5
    data = graph(ase.build.molecule("H2O"), TYPES)
    expected, found = call(theirs, data), call(ours, data)
    for quantity in ("total_energy", "atomic_energy", "forces"):
        assert relative_error(found[quantity], expected[quantity]) < 1e-6
    rebuilt = build_model(ours.config)
    rebuilt.load_state_dict(ours.state_dict())
    assert torch.equal(call(rebuilt.eval(), data)["forces"], found["forces"])


def test_averaged_and_last_weights_differ(checkpoint: Path) -> None:
    averaged, last = from_nequip_checkpoint(checkpoint), from_nequip_checkpoint(checkpoint, ema=False)
    changed = [not torch.equal(a, b) for a, b in zip(averaged.parameters(), last.parameters(), strict=True)]
    assert all(changed)


def test_pickled_objects_need_trust(checkpoint: Path, tmp_path: Path) -> None:
    path = _edited(
        checkpoint, tmp_path / "pickle.ckpt", lambda content: content.update(note=Path("x"), file=zipfile.Path)
    )
    with pytest.raises(InputError, match="trust=True"):
        from_nequip_checkpoint(path)
    trusted = from_nequip_checkpoint(path, trust=True)
    expected = from_nequip_checkpoint(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(trusted.parameters(), expected.parameters(), strict=True))


def _drop_key(content: dict[str, Any]) -> None:
    del content["state_dict"]["model.sole_model.model.func.layer1_convnet.conv.sc.weight"]


def _rename_model(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["info_dict"]["training_module"]["model"] = {"_target_": "allegro.model.AllegroModel"}


def _other_width(content: dict[str, Any]) -> None:
    model = content["hyper_parameters"]["info_dict"]["training_module"]["model"]["model"]
    model["radial_mlp_width"] = 17


def _swapped(content: dict[str, Any]) -> None:
    content["state_dict"]["ema._extra_state"]["is_holding_ema_weights"] = False


def _fewer_averages(content: dict[str, Any]) -> None:
    del content["state_dict"]["ema.ema_weight_3"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_drop_key, "16|17|lacks|averaged weights"),
        (_rename_model, "allegro.model.AllegroModel"),
        (_other_width, "the settings differ"),
        (_swapped, "swapped"),
        (_fewer_averages, "averaged weights for a model of"),
        (lambda content: content.pop("hyper_parameters"), "not a checkpoint of nequip"),
    ],
)
def test_damaged_checkpoint(checkpoint: Path, tmp_path: Path, edit: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_nequip_checkpoint(_edited(checkpoint, tmp_path / "edited.ckpt", edit))


def test_a_package_holds_the_model_of_its_checkpoint(checkpoint: Path, package: Path) -> None:
    expected, found = from_nequip_checkpoint(checkpoint), from_nequip_package(package)
    assert found.type_names == expected.type_names
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=0, msg=name)
    water = ase.build.molecule("H2O")
    forces = call(expected, graph(water, TYPES))["forces"]
    np.testing.assert_allclose(compile(package)(water).forces, forces, atol=1e-5)


def test_a_model_that_began_as_a_package(checkpoint: Path, package: Path, tmp_path: Path) -> None:
    def from_package(content: dict[str, Any]) -> None:
        content["hyper_parameters"]["info_dict"]["training_module"]["model"] = {
            "_target_": "nequip.model.ModelFromPackage",
            "package_path": str(package),
        }

    tuned = from_nequip_checkpoint(_edited(checkpoint, tmp_path / "tuned.ckpt", from_package))
    expected = from_nequip_checkpoint(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), expected.parameters(), strict=True))
    content = torch.load(tmp_path / "tuned.ckpt", weights_only=False)
    content["hyper_parameters"]["info_dict"]["training_module"]["model"]["package_path"] = "moved.nequip.zip"
    torch.save(content, tmp_path / "tuned.ckpt")
    with pytest.raises(InputError, match=r"moved\.nequip\.zip: no such package; the model was fine-tuned from it"):
        from_nequip_checkpoint(tmp_path / "tuned.ckpt")


class _Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def _without(name: str) -> Any:
    return lambda files: files.pop(next(each for each in files if each.endswith(name)))


def _cut_storages(files: dict[str, bytes]) -> None:
    for name in files:
        if name.endswith(".storage"):
            files[name] = files[name][:-1]


def _other_types(files: dict[str, bytes]) -> None:
    name = next(each for each in files if each.endswith("config.yaml"))
    files[name] = files[name].replace(b"type_names:\n      - H\n      - O", b"type_names:\n      - O\n      - H")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_without("package_metadata.txt"), "not a package of nequip 0.8"),
        (_without("eager_model.pkl"), "damaged"),
        (_cut_storages, "bytes instead of"),
        (_other_types, "its model is for H, O, its settings for O, H"),
    ],
)
def test_damaged_package(package: Path, tmp_path: Path, edit: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_nequip_package(_repacked(package, tmp_path, edit))


def _repacked(package: Path, folder: Path, edit: Any) -> Path:
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    edit(files)
    with zipfile.ZipFile(folder / "edited.nequip.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return folder / "edited.nequip.zip"


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_package_is_run(package: Path, tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "run"

    def hostile(files: dict[str, bytes]) -> None:
        name = next(each for each in files if each.endswith("eager_model.pkl"))
        files[name] = pickle.dumps(_Hostile(mark), protocol)

    with pytest.raises(InputError):
        from_nequip_package(_repacked(package, tmp_path, hostile))
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Hostile(mark), protocol))
    assert mark.exists()


@pytest.mark.parametrize(
    ("settings", "irreps", "harmonics"),
    [
        ({"parity": True, "l_max": 2}, "4x0e+4x1e+4x2e+4x0o+4x1o+4x2o", "0e+1o+2e"),
        ({"parity": False, "l_max": 2}, "4x0e+4x1e+4x2e", "0e+1e+2e"),
    ],
)
def test_what_settings_meant_before_nequip_0_16(tmp_path: Path, settings, irreps, harmonics) -> None:
    """Other irreps, other defaults; scales and shifts in rows."""
    common = {"seed": 3, "model_dtype": "float64", "type_names": TYPES, "r_max": 4.0, "avg_num_neighbors": 3.0}
    theirs = build_oracle(
        {
            "builder": "FullNequIPGNNModel",
            **common,
            "irreps_edge_sh": harmonics,
            "type_embed_num_features": 4,
            "feature_irreps_hidden": [irreps, irreps, "4x0e"],
            "radial_mlp_depth": [2] * 3,
            "radial_mlp_width": [64] * 3,
            "per_type_energy_shifts": {"H": 1.0, "O": -2.0},
        }
    )
    old = {"num_layers": 3, "num_features": 4, "per_type_energy_shifts": [1.0, -2.0], **settings, **common}
    old["_target_"] = "nequip.model.NequIPGNNEnergyModel"
    weights = {f"model.sole_model.{name}": value for name, value in theirs.state_dict().items()}
    shifts = next(name for name in weights if name.endswith("shifts"))
    weights[shifts] = weights[shifts].flatten()
    info = {"versions": {"nequip": "0.9.1"}, "training_module": {"model": old}}
    torch.save({"state_dict": weights, "hyper_parameters": {"info_dict": info}}, tmp_path / "old.ckpt")
    water = ase.build.molecule("H2O")
    expected = call(theirs, graph(water, TYPES))
    ours = from_nequip_checkpoint(tmp_path / "old.ckpt")
    assert relative_error(call(ours, graph(water, TYPES))["total_energy"], expected["total_energy"]) < 1e-12
    compiled = compile(tmp_path / "old.ckpt", radial="exact")(water)
    np.testing.assert_allclose(compiled.forces, expected["forces"], atol=1e-10)


def test_truncated_and_missing_file(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.ckpt"
    path.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(InputError, match="truncated"):
        from_nequip_checkpoint(path)
    with pytest.raises(InputError, match="no such file"):
        from_nequip_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(InputError, match="no such file"):
        from_nequip_package(tmp_path / "none.nequip.zip")
    with pytest.raises(InputError, match="not a readable package"):
        from_nequip_package(path)


def test_state_dict_of_another_model_is_refused() -> None:
    theirs = build_oracle(config("no_parity"))
    with pytest.raises(InputError, match="has unknown layer1_convnet"):
        load_nequip_state_dict(build_model({**config("no_parity"), "num_layers": 1}), theirs.state_dict())
    with pytest.raises(InputError, match="lacks layer2_convnet"):
        load_nequip_state_dict(build_model({**config("no_parity"), "num_layers": 3}), theirs.state_dict())
    with pytest.raises(InputError, match="0 NequIP models"):
        load_nequip_state_dict(build_model(config("no_parity")), {})
