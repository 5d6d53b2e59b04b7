"""Compiled potentials as models of torch-sim, which runs molecular dynamics and relaxations of many systems at once.

For torch-sim 0.6 and later; Python 3.12 or later is what that needs.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nequip_fast.data import VerletList, keys
from nequip_fast.devices import choose_device
from nequip_fast.engine import Potential, compile, load
from nequip_fast.errors import InputError, MissingExtra, require

_OLDEST = 0, 6


def _check_version() -> None:
    """MissingExtra if torch-sim is too old, or cannot be had."""
    if sys.version_info < (3, 12):
        raise MissingExtra("torch-sim 0.6 needs Python 3.12 or later; make an environment with that")
    require("torch_sim", "torch-sim")
    found = version("torch-sim-atomistic")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < _OLDEST:
        raise MissingExtra(
            f"torch-sim {found} is installed, and 0.6 or later is needed; run: pip install 'torch-sim-atomistic>=0.6'"
        )


_check_version()  # before the class below, which needs torch-sim to be defined at all
from torch_sim import SimState  # noqa: E402
from torch_sim.models.interface import ModelInterface  # noqa: E402


class NequIPFastModel(ModelInterface):
    """A potential for torch-sim: energies, forces and stress of all systems of a state in one pass.

    Neighbour lists are kept between calls, one for each system, and searched for on the CPU; a list that no longer fits
    its system is made anew, so that systems may come and go.

    Args:
        model: a compiled potential, the path of one (``*.nqf``), or what :func:`nequip_fast.compile` takes.
        device: of the states and of the evaluation: ``auto`` (CUDA if there is one), or a torch device.
        dtype: of the states and results, ``float32`` or ``float64``; the network has its own.
        compute_forces, compute_stress: what to return besides the energies.
        skin: extra distance of the neighbour lists, Å.

    Raises:
        InputError: the model cannot be read or compiled, there is no such device; when evaluating, an element that the
            model does not know, positions that are not finite, two atoms at one place, a state on another device.
    """

    def __init__(
        self,
        model: Potential | nn.Module | str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float64,
        compute_forces: bool = True,
        compute_stress: bool = True,
        skin: float = 0.5,
    ) -> None:
        super().__init__()
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be float32 or float64, not {dtype}")
        if isinstance(model, (str, os.PathLike)) and Path(model).suffix == ".nqf":
            model = load(model)
        potential = model if isinstance(model, Potential) else compile(model)
        self.potential = potential.to(choose_device(device))
        self._device, self._dtype = self.potential.device, dtype
        self._compute_forces, self._compute_stress = compute_forces, compute_stress
        self._skin = skin
        self._lists: list[VerletList] = []
        symbols = require("ase.data", "md").chemical_symbols
        types = {symbol: index for index, symbol in enumerate(potential.type_names)}
        self._symbols = symbols
        self._types = torch.tensor([types.get(symbol, -1) for symbol in symbols])  # by atomic number

    @ModelInterface.compute_forces.setter
    def compute_forces(self, value: bool) -> None:
        """Whether forces are returned."""
        self._compute_forces = value

    @ModelInterface.compute_stress.setter
    def compute_stress(self, value: bool) -> None:
        """Whether the stress is returned."""
        self._compute_stress = value

    def forward(self, state: SimState, **_kwargs: Any) -> dict[str, Tensor]:
        """Of every system at once.

        Args:
            state: systems with atomic numbers, on the device of the model; of any precision and memory layout.

        Returns:
            energy [B] eV, forces [N, 3] eV/Å, stress [B, 3, 3] eV/Å³ (NaN for a system without periodicity or volume).
        """
        if state.device.type != self._device.type:
            raise InputError(f"the state is on {state.device}, the model on {self._device}; put both on one device")
        output = self.potential.evaluate(self._graph(state))
        results = {"energy": output[keys.TOTAL_ENERGY].flatten()}
        if self._compute_forces:
            results["forces"] = output[keys.FORCES]
        if self._compute_stress:
            results["stress"] = output[keys.STRESS]
        return {name: value.to(self._device, self._dtype) for name, value in results.items()}

    def _graph(self, state: SimState) -> dict[str, Tensor]:
        """The state as a batch of structures; it is copied to the CPU, in rows."""
        positions = state.positions.detach().to("cpu", torch.float64).contiguous()
        pbc = state.pbc.cpu().expand(3)
        cells = state.row_vector_cell.detach().to("cpu", torch.float64).contiguous()
        if not pbc.any():
            cells = torch.zeros_like(cells)
        structure = state.system_idx.cpu()
        counts = torch.bincount(structure, minlength=cells.shape[0])
        edges, shifts, start = [], [], 0
        for number, count in enumerate(counts.tolist()):
            if number == len(self._lists):
                self._lists.append(VerletList(self.potential.r_max, self._skin))
            own = positions[start : start + count].numpy()
            ptr, neighbours, shift = self._lists[number].collected(own, cells[number].numpy(), pbc.numpy())
            centres = torch.repeat_interleave(torch.arange(count), ptr.diff())
            edges.append(torch.stack([centres, neighbours.long()]) + start)
            shifts.append(shift)
            start += count
        return {
            keys.POSITIONS: positions,
            keys.ATOM_TYPES: self._types_of(state.atomic_numbers.cpu()),
            keys.BATCH: structure,
            keys.NUM_ATOMS: counts,
            keys.CELL: cells,
            keys.EDGE_INDEX: torch.cat(edges, 1),
            keys.EDGE_CELL_SHIFT: torch.cat(shifts),
        }

    def _types_of(self, numbers: Tensor) -> Tensor:
        """[N]"""
        types = self._types[numbers.long()]
        if (types < 0).any():
            unknown = sorted({self._symbols[number] for number in numbers[types < 0].tolist()})
            known = ", ".join(self.potential.type_names)
            raise InputError(
                f"the state holds {', '.join(unknown)}, but the model knows only {known}; use a model trained on every "
                "element of it"
            )
        return types
