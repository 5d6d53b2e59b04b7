"""A small anharmonic crystal and a molecule for dynamics without a trained model."""

from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.io import write


@pytest.fixture
def crystal(tmp_path: Path) -> str:
    """File with 8 copper atoms, slightly off their sites."""
    atoms = bulk("Cu", "fcc", 3.61).repeat((2, 2, 2))
    atoms.rattle(0.02, seed=1)
    path = tmp_path / "crystal.xyz"
    write(path, atoms)
    return str(path)


@pytest.fixture
def ethane(tmp_path: Path) -> str:
    """File with one molecule without cell."""
    path = tmp_path / "ethane.xyz"
    write(path, molecule("C2H6"))
    return str(path)
