"""A compiled model: energies, forces and stress of structures without autograd."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nequip_fast.data import VerletList, collate, graph_from_atoms, keys
from nequip_fast.data.graph import atom_types
from nequip_fast.devices import choose_device
from nequip_fast.engine import file
from nequip_fast.engine.on_cpu import CpuEngine
from nequip_fast.engine.on_device import DeviceEngine
from nequip_fast.engine.program import Program
from nequip_fast.engine.report import plot_radial
from nequip_fast.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from nequip_fast.integrations.ase import PotentialCalculator


@dataclass(frozen=True)
class Prediction:
    """What a potential says of one structure.

    Attributes:
        energy: eV.
        energies: of each atom [N], eV.
        forces: [N, 3], eV/Å.
        virial: −dE/dstrain [3, 3], eV.
        stress: dE/dstrain over the volume [3, 3], eV/Å³; None without a cell of a volume.
    """

    energy: float
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]
    stress: NDArray[np.float64] | None


class Potential:
    """A model specialised for evaluation; made by :func:`nequip_fast.compile` or :func:`nequip_fast.load`.

    Evaluations of one potential take turns; for several at a time make several.

    Args:
        program: what to compute.
        dtype: ``float32`` or ``float64``, of the network; geometry and energies are float64.
        report: what compiling found out.
        threads: of a CPU, at most as many as torch may use; None: all of these.
        device: where to evaluate.

    Attributes:
        type_names: chemical symbols of the types.
        r_max: largest cutoff, Å.
    """

    def __init__(
        self,
        program: Program,
        dtype: torch.dtype,
        report: Mapping[str, Any] | None = None,
        threads: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        check_dtype(dtype)
        if threads is not None and threads < 1:
            raise InputError(f"threads={threads}: give a positive number, or None for as many as torch uses")
        self.program, self.dtype, self.report, self.threads = program, dtype, dict(report or {}), threads
        self.type_names = list(program.type_names)
        self.r_max = float(program.cutoff.max())
        self.device = choose_device(device)
        self._types: tuple[bytes, Tensor, Tensor] | None = None  # of _types_of
        self._engine: CpuEngine | DeviceEngine
        if self.device.type == "cpu":
            self._engine = CpuEngine(program, dtype, threads)
        elif self.device.type == "cuda":
            self._engine = DeviceEngine(program, dtype, self.device)
        else:
            raise InputError(f"device {device}: a potential runs on cpu or cuda")

    def to(self, device: str | torch.device) -> Potential:
        """The same potential on another device: ``cpu``, ``cuda``, ``cuda:1``, …, or ``auto``.

        On a GPU the steps of a calculator are captured as CUDA graphs, which takes seconds: the first one, and later
        ones with other atoms or more pairs than there is room for.

        Raises:
            InputError: there is no such device.
        """
        chosen = choose_device(device)
        return self if chosen == self.device else Potential(self.program, self.dtype, self.report, self.threads, chosen)

    def __call__(self, atoms: Atoms) -> Prediction:
        """Energy, forces and stress of one structure.

        Raises:
            InputError: an element the model does not know, positions that are not finite, two atoms at one place.
        """
        return self.batch([atoms])[0]

    def batch(self, structures: Sequence[Atoms]) -> list[Prediction]:
        """As calling it with each structure, in one pass."""
        if not structures:
            return []
        graphs = [graph_from_atoms(atoms, self.type_names, self.r_max) for atoms in structures]
        return predictions(self.evaluate(collate(graphs)), [len(atoms) for atoms in structures])

    def of_pairs(self, atoms: Atoms, neighbours: VerletList) -> Prediction:
        """As calling it, with a neighbour list that is kept between the steps of molecular dynamics.

        Args:
            neighbours: made with cutoff ``r_max``.
        """
        periodic = bool(atoms.pbc.any())
        cell = np.array(atoms.cell) if periodic else np.zeros((3, 3))
        with self._in_a_sentence(len(atoms)):
            pairs = neighbours.collected(atoms.positions, cell, atoms.pbc)
        types, structure = self._types_of(atoms)
        positions = torch.from_numpy(np.ascontiguousarray(atoms.positions, dtype=np.float64))
        energies, forces, strain = self._run(
            positions, types, structure, torch.from_numpy(cell.reshape(1, 9)), pairs,
            (neighbours, neighbours.num_collections),
        )  # fmt: skip
        virial, stress = _virial_and_stress(strain.numpy(), cell if periodic else None)
        return Prediction(
            float(energies.sum()),
            energies.numpy(),
            forces.numpy(),
            virial[0],
            stress[0] if stress is not None and np.isfinite(stress).all() else None,
        )

    def _types_of(self, atoms: Atoms) -> tuple[Tensor, Tensor]:
        """Types and structure, all 0, of the atoms; kept, since the steps of a simulation have the same."""
        numbers = atoms.numbers.tobytes()
        if self._types is None or self._types[0] != numbers:
            self._types = numbers, atom_types(atoms, self.type_names), torch.zeros(len(atoms), dtype=torch.int64)
        return self._types[1:]

    def evaluate(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of :class:`~nequip_fast.model.GraphModel` for its input; edges beyond the cutoff are passed over.

        Raises:
            InputError: positions that are not finite, two atoms at one place, types or edges out of range.
        """
        data = {name: value.cpu() for name, value in data.items()}
        edge_index, atoms = data[keys.EDGE_INDEX], data[keys.POSITIONS].shape[0]
        given = data.get(keys.EDGE_CELL_SHIFT, torch.zeros(edge_index.shape[1], 3, dtype=torch.int32))
        shift = given.to(torch.int32)
        if not bool((shift == given).all()):
            raise InputError(f"{keys.EDGE_CELL_SHIFT!r} must be whole numbers of lattice vectors")
        if not bool((edge_index[0, 1:] >= edge_index[0, :-1]).all()):
            order = torch.argsort(edge_index[0], stable=True)
            edge_index, shift = edge_index[:, order], shift[order]
        ptr = torch.searchsorted(edge_index[0].contiguous(), torch.arange(atoms + 1))
        if keys.CELL in data:
            cells = data[keys.CELL].reshape(-1, 9)
        else:
            cells = torch.zeros(data[keys.NUM_ATOMS].numel() if keys.NUM_ATOMS in data else 1, 9, dtype=torch.float64)
        structure = data.get(keys.BATCH, torch.zeros(atoms, dtype=torch.int64))
        energies, forces, strain = self._run(
            data[keys.POSITIONS],
            data[keys.ATOM_TYPES].reshape(-1),
            structure,
            cells,
            (ptr, edge_index[1].to(torch.int32), shift),
        )
        structures = cells.shape[0]
        total = torch.zeros(structures, dtype=torch.float64)
        total.index_add_(0, structure, energies)
        virial, stress = _virial_and_stress(strain.numpy(), cells.numpy())
        return {
            keys.TOTAL_ENERGY: total.unsqueeze(1),
            keys.ATOMIC_ENERGY: energies.unsqueeze(1),
            keys.FORCES: forces,
            keys.VIRIAL: torch.from_numpy(virial),
            keys.STRESS: torch.from_numpy(stress),
        }

    def _run(
        self, positions: Tensor, types: Tensor, structure: Tensor, cells: Tensor, pairs: tuple[Tensor, Tensor, Tensor],
        kept: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """(energies [N], forces [N, 3], dE/dstrain [B, 9]); pairs are (ptr, neighbour, shift) of each atom in turn."""
        with self._in_a_sentence(len(types)):
            return self._engine.evaluate(positions, types, structure, cells, pairs, kept)

    @contextmanager
    def _in_a_sentence(self, atoms: int) -> Iterator[None]:
        """What goes wrong in the engine, as an InputError."""
        try:
            yield
        except InputError:
            raise
        except torch.OutOfMemoryError:
            raise InputError(
                f"{atoms} atoms take more memory than {self.device} has left; evaluate fewer at a time, or use float32"
            ) from None
        except RuntimeError as error:
            raise InputError(str(error).splitlines()[0]) from None
        except Exception as error:
            if type(error).__module__.split(".")[0] != "triton":  # its errors are no RuntimeErrors
                raise
            raise InputError(f"Triton cannot run a kernel on {self.device}: {str(error).splitlines()[0]}") from error

    def calculator(self, skin: float = 0.5) -> PotentialCalculator:
        """An ASE calculator; ``skin``: extra distance of its neighbour list, Å."""
        from nequip_fast.integrations.ase import PotentialCalculator

        return PotentialCalculator(self, skin)

    def plot_radial(self, path: str | os.PathLike[str]) -> None:
        """Write a figure of the radial functions and the error of their tables; the suffix of ``path`` is the format.

        Raises:
            InputError: there are no tables.
        """
        plot_radial(self.program, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the potential to ``path``, by custom ``*.nqf``, in one step."""
        file.write(path, self.program, self.dtype, self.report)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Potential:
        """The potential in ``path``; reading it executes nothing.

        Raises:
            InputError: the file is missing, cut short, damaged, no compiled model, or written by a later version.
        """
        program, dtype, report = file.read(path)
        try:
            return cls(program, dtype, report)
        except (RuntimeError, LookupError, TypeError, ValueError, OverflowError) as error:  # it does not hold together
            raise InputError(f"{path}: damaged ({str(error).splitlines()[0]}); compile it again") from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and other processes get an engine of their own."""
        return Potential, (self.program, self.dtype, self.report, self.threads, str(self.device))

    def __repr__(self) -> str:
        return f"Potential({', '.join(self.type_names)}; r_max {self.r_max:g} Å, {self.dtype}, {self.device})"


def predictions(outputs: Mapping[str, Tensor], num_atoms: Sequence[int]) -> list[Prediction]:
    """The outputs of a potential or model for a batch, one structure each; ``num_atoms`` of each [B]."""
    output = {name: value.detach().cpu().numpy() for name, value in outputs.items()}
    ends = np.cumsum(num_atoms).tolist()
    return [
        Prediction(
            float(output[keys.TOTAL_ENERGY][k, 0]),
            output[keys.ATOMIC_ENERGY][end - count : end, 0],
            output[keys.FORCES][end - count : end],
            output[keys.VIRIAL][k],
            output[keys.STRESS][k] if np.isfinite(output[keys.STRESS][k]).all() else None,
        )
        for k, (count, end) in enumerate(zip(num_atoms, ends, strict=True))
    ]


def check_dtype(dtype: torch.dtype) -> torch.dtype:
    """``dtype``, if it is one of a network's."""
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype must be float32 or float64, not {dtype}")
    return dtype


def _virial_and_stress(
    strain: NDArray[np.float64], cells: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Both [B, 3, 3] from dE/dstrain and the cells, each B times nine numbers; stress NaN for a cell without volume."""
    gradient = strain.reshape(-1, 3, 3)
    gradient = 0.5 * (gradient + gradient.transpose(0, 2, 1))
    if cells is None:
        return -gradient, None
    volume = np.abs(np.linalg.det(cells.reshape(-1, 3, 3))).reshape(-1, 1, 1)
    return -gradient, gradient / np.where(volume > 0, volume, np.nan)
