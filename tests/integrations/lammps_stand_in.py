"""What LAMMPS gives to nequip's ML-IAP interface, for one periodic structure: pairs, ghost atoms, their exchange."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import ase
import torch
from ase.neighborlist import neighbor_list
from torch import Tensor


class MLIAPData(SimpleNamespace):
    """A ghost for every image of an atom that is the neighbour of one in the cell."""

    def __init__(self, atoms: ase.Atoms, r_max: float) -> None:
        i, j, shift, vectors = neighbor_list("ijSD", atoms, r_max)
        images: dict[tuple[int, ...], int] = {}
        places = []
        for atom, cell in zip(j.tolist(), map(tuple, shift.tolist()), strict=True):
            ghost = len(atoms) + images.setdefault((atom, *cell), len(images)) if any(cell) else atom
            places.append(ghost)
        self.owner = torch.tensor([atom for atom, *_ in images])
        self.nlocal, self.ntotal, self.npairs = len(atoms), len(atoms) + len(images), len(i)
        self.rij, self.pair_i, self.pair_j = vectors, i, torch.tensor(places).numpy()
        self.elems = torch.zeros(self.ntotal, dtype=torch.int64).numpy()
        self.eatoms = torch.zeros(self.nlocal, dtype=torch.float64).numpy()

    def forward_exchange(self, features: Tensor, out: Tensor, _width: int) -> None:
        out.copy_(features)
        out[self.nlocal :] = features[self.owner]

    def reverse_exchange(self, gradient: Tensor, out: Tensor, _width: int) -> None:
        out.zero_()
        out[: self.nlocal] = gradient[: self.nlocal]
        out.index_add_(0, self.owner, gradient[self.nlocal :])

    def update_pair_forces_gpu(self, forces: Tensor) -> None:
        self.forces = forces.clone()


def evaluate(model: Path, atoms: ase.Atoms, modifiers: list[str]) -> MLIAPData:
    """Energy and pair forces by what nequip-prepare-lmp-mliap writes into its file."""
    with _lammps():
        from nequip.integrations.lammps_mliap.lmp_mliap_wrapper import NequIPLAMMPSMLIAPWrapper

        interface: Any = NequIPLAMMPSMLIAPWrapper(str(model), "sole_model", modifiers=modifiers, compile=False)
        data = MLIAPData(atoms, 2 * interface.rcutfac)
        interface.compute_forces(data)
    return data


@contextmanager
def _lammps() -> Iterator[None]:
    """The one name that nequip imports of it."""
    name = "lammps.mliap.mliap_unified_abc"
    modules = {name: ModuleType(name) for name in ("lammps", "lammps.mliap", name)}
    modules[name].MLIAPUnified = object  # type: ignore[attr-defined]
    before = {key: sys.modules.get(key) for key in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for key, module in before.items():
            if module is None:
                del sys.modules[key]
            else:
                sys.modules[key] = module
