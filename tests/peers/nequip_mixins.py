"""nequip's own acceptance tests of models, which it ships as mixins, on our builders and on nequip's with our modifier.

Run by nequip_acceptance.py, in processes of their own: nequip's fixtures change settings of the whole process. Where a
test looks for a module by nequip's class, it is given the module of ours that has its place; no limit is changed.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ase.io
import nequip.utils.test
import numpy as np
import pytest
import torch
from nequip.data import AtomicDataDict
from nequip.nn import PartialForceOutput
from nequip.utils.unittests import model_tests_basic, utils
from nequip.utils.unittests.model_tests import BaseEnergyModelTests
from nequip.utils.unittests.model_tests_torchsim import TorchSimIntegrationMixin
from omegaconf import OmegaConf

import nequip_fast.integrations.nequip  # noqa: F401  as nequip's entry point does
from nequip_fast.model import GraphModel
from nequip_fast.nn import PerTypeScaleShift

ROOT = Path(__file__).resolve().parents[2]
MODIFIER = "enable_NequipFast"

COMMON = {
    "seed": 3,
    "type_names": ["H", "C", "O"],
    "r_max": 4.0,
    "avg_num_neighbors": 15.0,
    "per_type_energy_shifts": {"H": 1.5, "C": -2.5, "O": 3.5},
}
SMALL = {**COMMON, "num_layers": 2, "num_features": 8, "radial_mlp_depth": 1, "radial_mlp_width": 8}
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "chemical_species": ["H", "C", "O"], "units": "metal"}
CUTOFFS = {"H": 2.0, "C": {"H": 4.0, "C": 3.5, "O": 3.7}, "O": 3.9}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "l1": ("NequIPGNNModel", {**SMALL, "l_max": 1, "parity": False}),
    "l2_parity": ("NequIPGNNModel", {**SMALL, "l_max": 2, "parity": True, "num_layers": 3, "num_features": [7, 5, 3]}),
    "cutoffs_by_type": ("NequIPGNNModel", {**SMALL, "l_max": 2, "parity": True, "per_edge_type_cutoff": CUTOFFS}),
    "zbl": ("NequIPGNNModel", {**SMALL, "l_max": 1, "parity": True, "pair_potential": ZBL}),
    "preset_S": ("PresetNequIPGNNModel", {**COMMON, "preset": "S"}),
}


def mixin_of(test: str) -> str:
    """The one that a test is from."""
    return next(cls.__name__ for cls in Acceptance.__mro__[1:] if test in vars(cls))


class Acceptance(BaseEnergyModelTests, TorchSimIntegrationMixin):
    """What both kinds of builder share."""

    package: str  # where its builders are

    @pytest.fixture(scope="class", params=MODELS)
    @classmethod
    def config(cls, request):
        builder, settings = MODELS[request.param]
        return {"_target_": f"{cls.package}.{builder}", **copy.deepcopy(settings)}

    @pytest.fixture
    def strict_locality(self):
        return False

    @pytest.fixture(scope="class")
    @classmethod
    def train_fn(cls):
        return _train


class TestOurs(Acceptance):
    """Models of nequip_fast's builders, named in nequip's configuration."""

    package = "nequip_fast.model"

    @pytest.fixture(autouse=True)
    def _our_classes(self, monkeypatch):
        """What the tests look for by class: nequip's, which hold nothing of ours, would let them check less or else.

        The energy of isolated atoms is found by the class of one module; a model's limits under permutations are
        those of its precision if it is a GraphModel, and those of float64 otherwise.
        """
        monkeypatch.setattr(model_tests_basic, "PerTypeScaleShift", PerTypeScaleShift)
        monkeypatch.setattr(nequip.utils.test, "GraphModel", GraphModel)

    @pytest.fixture(scope="class")
    @classmethod
    def partial_model(cls, model, device):
        """nequip's PartialForceOutput takes the energies of our whole model: it has no module of them to cut out."""
        _, config, _ = model
        energies = cls.make_model(config, device)
        energies.do_derivatives = False
        partial = PartialForceOutput(energies)
        return partial, partial.irreps_out.keys()

    def test_embedding_cutoff(self, model, device):
        """nequip's test returns at once where the edges' embedding is not among the results, so it is put there."""
        with embedding_shown(model[0]):
            super().test_embedding_cutoff(model, device)


@contextmanager
def embedding_shown(model: torch.nn.Module) -> Iterator[None]:
    """Give the radial basis of the edges among the results, under nequip's name."""
    seen: list[torch.Tensor] = []
    hooks = [
        model.bessel_encode.register_forward_hook(lambda module, inputs, basis: seen.append(basis)),
        model.register_forward_hook(
            lambda module, inputs, results: {**results, AtomicDataDict.EDGE_EMBEDDING_KEY: seen[-1]}
        ),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    assert seen


class TestModified(Acceptance):
    """Models of nequip's builders, modified; the trained ones when they are compiled, beside the unmodified."""

    package = "nequip.model"

    @staticmethod
    def make_model(model_config, device):
        modifiers = [{"modifier": MODIFIER}]
        return Acceptance.make_model(
            {"_target_": "nequip.model.modify", "modifiers": modifiers, "model": model_config}, device
        )

    def test_train_time_compile(
        self, model, model_test_data, device, model_dtype, train_time_compile_modifiers, train_time_compile_tol
    ):
        """nequip's test leaves device "cpu" out, where its own models fail; as an object the name passes.

        One model serves several cases, whose gradients would add up.
        """
        model[0].zero_grad()
        device = torch.device(device)
        super().test_train_time_compile(
            model, model_test_data, device, model_dtype, train_time_compile_modifiers, train_time_compile_tol
        )

    @pytest.fixture(scope="class")
    @classmethod
    def ase_compile_modifiers(cls):
        return lambda mode, device, model_dtype: [MODIFIER]

    @pytest.fixture(scope="class")
    @classmethod
    def torchsim_compile_modifiers(cls):
        return lambda mode, device, model_dtype: [MODIFIER]

    @pytest.fixture(scope="class")
    @classmethod
    def mliap_acceleration_modifiers(cls):
        return lambda compile, model_dtype: [MODIFIER]


def _train(conffile: str, *arguments: Any, **named: Any) -> Iterator[Any]:
    """nequip's training, on ethanol in place of the aspirin that nequip would download."""
    if conffile != "minimal_aspirin.yaml":
        yield from utils._training_session(conffile, *arguments, **named)
        return
    config = OmegaConf.load(Path(utils.__file__).with_name(conffile))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        structures = ase.io.read(ROOT / "demo" / "data" / "ethanol.xyz", ":50")
        np.savez(
            folder / "ethanol.npz",  # nequip's format, which has no cell: of a cell of zeros the stress is not a number
            z=structures[0].numbers,
            R=np.array([atoms.positions for atoms in structures]),
            E=np.array([[atoms.get_potential_energy()] for atoms in structures]),
            F=np.array([atoms.get_forces() for atoms in structures]),
        )
        dataset = {
            "_target_": "nequip.data.dataset.NPZDataset",
            "file_path": str(folder / "ethanol.npz"),
            "transforms": config.data.transforms,
        }
        for key in ("dataset", "data_source_dir", "transforms", "trainval_test_subset", "train_val_split"):
            del config.data[key]
        config.data._target_ = "nequip.data.datamodule.NequIPDataModule"
        config.data.split_dataset = {"dataset": dataset, "train": 30, "val": 10, "test": 10}
        OmegaConf.save(config, folder / conffile)
        yield from utils._training_session(str(folder / conffile), *arguments, **named)
