"""Data that several training tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from nequip_fast.cli import main
from nequip_fast.dtypes import default_dtype


def labelled_pair(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Random labels of a 2-atom and a 3-atom structure: (prediction, reference)."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    common = {
        "num_atoms": torch.tensor([2, 3]),
        "batch": torch.tensor([0, 0, 1, 1, 1]),
        "atom_types": torch.tensor([0, 1, 1, 1, 0]),
        "pos": random(5, 3),
    }
    labels = [{"total_energy": random(2, 1), "forces": random(5, 3), "stress": random(2, 3, 3)} for _ in range(2)]
    return {**common, **labels[0]}, {**common, **labels[1]}


@pytest.fixture
def two_structures() -> Callable[..., tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """:func:`labelled_pair`; another seed gives other labels."""
    return labelled_pair


@pytest.fixture
def float64_default() -> Iterator[None]:
    """nequip's metrics sum in torch's default dtype; compare with them at full precision."""
    with default_dtype(torch.float64):
        yield


def write_springs(path: Path, number: int, seed: int = 0, symbols: str = "OH2") -> None:
    """Molecules held together by springs between all their atoms: cheap energies and exact forces."""
    rng = np.random.default_rng(seed)
    molecules = []
    for _ in range(number):
        atoms = Atoms(symbols, positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        rest = atoms.get_all_distances()
        atoms.positions += 0.08 * rng.normal(size=(3, 3))
        separation = atoms.positions[:, None] - atoms.positions[None]
        distance = np.linalg.norm(separation, axis=-1) + np.eye(3)
        stretch = (distance - rest) * (1 - np.eye(3))
        energy = 0.25 * 10.0 * float((stretch**2).sum()) - 14.0
        forces = -10.0 * (stretch / distance)[..., None] * separation
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces.sum(1))
        molecules.append(atoms)
    write(path, molecules)


@pytest.fixture(scope="session")
def make_springs() -> Callable[..., None]:
    """:func:`write_springs`."""
    return write_springs


@pytest.fixture(scope="session")
def springs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 28 such molecules."""
    path = tmp_path_factory.mktemp("data") / "springs.xyz"
    write_springs(path, 28)
    return path


def tiny(springs: Path, output: Path, **overrides: object) -> list[str]:
    """Arguments of a training run that takes a few seconds."""
    settings: dict[str, object] = {
        "data.file": springs,
        "output": output,
        "device": "cpu",
        "threads": 1,  # as fast as two on so little, and no waiting for the other where the machine is busy
        "data.n_train": 20,
        "data.n_val": 4,
        "data.n_test": 4,
        "model.num_layers": 2,
        "model.num_features": 4,
        "model.radial_mlp_width": 8,
        "model.r_max": 3.0,
        "training.batch_size": 4,
        "training.max_epochs": 3,
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    return ["train", *(f"{name}={value}" for name, value in settings.items())]


@pytest.fixture(scope="session")
def tiny_run() -> Callable[..., list[str]]:
    """:func:`tiny`."""
    return tiny


@pytest.fixture(scope="session")
def trained(springs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Not to be changed by tests."""
    output = tmp_path_factory.mktemp("runs") / "trained"
    assert main(tiny(springs, output)) == 0
    return output
