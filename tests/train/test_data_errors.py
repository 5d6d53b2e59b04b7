"""Training on data that cannot be trained on: one sentence each, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nequip_fast.cli import main
from nequip_fast.data import keys
from nequip_fast.train.config import read_config
from nequip_fast.train.dataset import load_datasets

Arguments = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data.file": "nowhere.xyz"}, "nowhere.xyz: no such file"),
        ({"data.test_file": "nowhere.xyz"}, "nowhere.xyz: no such file"),
        ({"data.n_train": 500}, "has 28 structures, too few for 500 to train, 4 to validate and 4 to test"),
        ({"data.type_names": "[H,C]"}, "holds O, but the model knows only H, C"),
        ({"data.energy_key": "REF_energy"}, "REF_energy"),
        ({"training.loss.stress": 1}, "no stress under 'stress'"),
        ({"data.isolated_atom_energies": "{H: -13.6}"}, "isolated_atom_energies: O is missing"),
        ({"data.isolated_atom_energies": "{H: -1, O: -2, N: -3}"}, "'N' is not in type_names"),
        ({"training.learning_rate": "1e30"}, "training diverged in epoch"),
    ],
)
def test_one_sentence(
    springs: Path,
    tiny_run: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    sentence: str,
) -> None:
    changes = {name.replace(".", "__"): value for name, value in change.items()}
    assert main(tiny_run(springs, tmp_path / "run", **changes)) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is there")
def test_no_gpu(springs: Path, tiny_run: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tiny_run(springs, tmp_path, device="cuda")) == 2
    assert "torch finds no GPU" in capsys.readouterr().err


def test_epochs_are_permutations_that_depend_on_seed_and_epoch(springs: Path) -> None:
    config = read_config({"data": {"file": str(springs), "n_val": 4, "n_test": 4}, "model": {"r_max": 3.0}})
    train = load_datasets(config).train

    def energies(seed: int, epoch: int, **keywords: int) -> list[float]:
        batches = train.epoch(seed, epoch, 6, **keywords)
        return [energy for batch in batches for energy in batch.reference[keys.TOTAL_ENERGY].view(-1).tolist()]

    first = energies(0, 0)
    assert len(first) == len(set(first)) == 20
    assert energies(0, 0) == first
    assert energies(0, 0, skip=2) == first[12:]
    assert energies(0, 1) != first
    assert energies(1, 0) != first
    assert sorted(energies(1, 0)) == sorted(first)
    shares = [energies(0, 0, rank=rank, world=2) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == sorted(first)


def test_counts_are_those_of_the_whole_batch(springs: Path) -> None:
    config = read_config({"data": {"file": str(springs), "n_val": 4, "n_test": 4}, "model": {"r_max": 3.0}})
    train = load_datasets(config).train
    share = next(iter(train.epoch(0, 0, 6, rank=1, world=2)))
    assert share.counts == {"energy": 6, "forces": 54, "stress": 1}
    assert share.reference[keys.FORCES].shape == (9, 3)
