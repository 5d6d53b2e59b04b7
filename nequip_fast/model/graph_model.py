"""From a graph dictionary to energy, forces and stress: the one place where the dictionary is read and written."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nequip_fast.data import keys
from nequip_fast.errors import InputError
from nequip_fast.model.nequip_interface import NequIPInterface
from nequip_fast.ops.backend import traced


@dataclass(frozen=True)
class EdgeGeometry:
    """What an energy model sees of a batch of structures.

    Attributes:
        types: [N] int64.
        edge_index: [2, E] int64, row 0 the centre.
        vectors: [E, 3] float64, from the centre to the neighbour, Å.
        lengths: [E, 1] float64, Å.
        batch: [N] structure of each atom; None for a single structure.
        data: the graph dictionary, for fields that only some models read.
    """

    types: Tensor
    edge_index: Tensor
    vectors: Tensor
    lengths: Tensor
    batch: Tensor | None
    data: Mapping[str, Tensor]


class GraphModel(NequIPInterface, ABC):
    """An interatomic potential on graph dictionaries (:mod:`nequip_fast.data.keys`).

    Subclasses define :meth:`atomic_energies`; forces and stress are its derivatives.

    Attributes:
        type_names: name of each atom type, by index.
        r_max: largest cutoff, Å.
        model_dtype: precision of the network; geometry and energies are float64.
        config: JSON-able dict that rebuilds the model with ``build_model``.
        extra: facts that came with the model's file, see ``load_model``.
        do_derivatives: whether ``forward`` gives forces and stress.
    """

    def __init__(self, type_names: Sequence[str], r_max: float, model_dtype: torch.dtype, do_derivatives: bool) -> None:
        super().__init__()
        self.type_names = list(type_names)
        self.r_max = float(r_max)
        self.model_dtype = model_dtype
        self.do_derivatives = do_derivatives
        self.config: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}

    @abstractmethod
    def atomic_energies(self, geometry: EdgeGeometry) -> Tensor:
        """Energy of each atom, [N, 1] float64, eV; its gradients by the vectors of the two edges of a pair together
        are those of their distance, which of them alone need not be."""

    def forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Energies, and forces and stress unless ``do_derivatives`` is off.

        In training mode the outputs can be differentiated with respect to the parameters; in evaluation mode they
        are detached. Works inside ``torch.no_grad()``.

        Args:
            data: pos, atom_types, edge_index; for periodic structures cell and edge_cell_shift; for a batch of
                several structures batch and num_atoms.

        Returns:
            total_energy [B, 1] and atomic_energy [N, 1] in eV, forces [N, 3] in eV/Å, and with a cell
            stress (dE/dstrain / volume, eV/Å³; NaN for a cell without volume) and virial (-dE/dstrain, eV) [B, 3, 3];
            and, as nequip's models do, the inputs.

        Raises:
            InputError: a tensor is missing, of the wrong type or on another device, an atom type is unknown to the
                model, positions are not finite, or two atoms coincide.
        """
        if not self.do_derivatives:
            geometry, num_graphs = self._geometry(data)
            atomic = self.atomic_energies(geometry)
            total = _sum_by_graph(atomic, geometry.batch, num_graphs)
            return {**self.given(data), keys.TOTAL_ENERGY: total, keys.ATOMIC_ENERGY: atomic}
        if torch.is_inference_mode_enabled():
            raise InputError("forces need autograd: call the model under torch.no_grad(), not torch.inference_mode()")
        with torch.enable_grad():
            return self._with_derivatives(data)

    def _with_derivatives(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        geometry, num_graphs = self._geometry(data, differentiable=True)
        with nullcontext() if self.training or traced() else _constant_parameters(self):
            atomic = self.atomic_energies(geometry)
        total = _sum_by_graph(atomic, geometry.batch, num_graphs)
        (gradient,) = torch.autograd.grad(
            total.sum(), geometry.vectors, create_graph=self.training, allow_unused=True, materialize_grads=True
        )
        # Forces and strain derivative follow from dE/dr_ij: positions and cell enter through the edges alone.
        forces = torch.zeros_like(data[keys.POSITIONS])
        forces = forces.index_add(0, geometry.edge_index[0], gradient)
        forces = forces.index_add(0, geometry.edge_index[1], -gradient)
        outputs = {keys.TOTAL_ENERGY: total, keys.ATOMIC_ENERGY: atomic, keys.FORCES: forces}
        if keys.CELL in data:
            strain_gradient = _strain_gradient(geometry, gradient, num_graphs)
            outputs[keys.STRESS] = strain_gradient / _volume(data[keys.CELL], num_graphs)
            outputs[keys.VIRIAL] = -strain_gradient
        if not self.training:
            outputs = {name: value.detach() for name, value in outputs.items()}
        return {**self.given(data), **outputs}

    def _geometry(self, data: Mapping[str, Tensor], differentiable: bool = False) -> tuple[EdgeGeometry, int]:
        """The checked geometry and the number of structures; ``differentiable`` edge vectors require a gradient."""
        positions, types, edge_index = self._checked_tensors(data)
        batch = data.get(keys.BATCH)
        num_graphs = _num_graphs(data)
        if batch is None and num_graphs != 1:
            raise InputError(f"the graph holds {num_graphs} structures but no {keys.BATCH!r}; add it (see collate)")
        vectors = positions[edge_index[1]] - positions[edge_index[0]]
        if keys.CELL in data:
            if keys.EDGE_CELL_SHIFT not in data:
                raise InputError(f"the graph has a cell but no {keys.EDGE_CELL_SHIFT!r}; add one shift per edge")
            cell, shift = data[keys.CELL].reshape(-1, 3, 3), data[keys.EDGE_CELL_SHIFT]
            _check_dtype(keys.CELL, cell, torch.float64)
            _check_dtype(keys.EDGE_CELL_SHIFT, shift, torch.float64)
            if batch is None or cell.shape[0] == 1:
                vectors = vectors + shift @ cell[0]
            else:
                vectors = vectors + torch.bmm(shift.unsqueeze(1), cell[batch[edge_index[0]]]).squeeze(1)
        if differentiable and not vectors.requires_grad:
            vectors.requires_grad_(True)
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        if not traced():
            _check_values(positions, lengths)
        return EdgeGeometry(types, edge_index, vectors, lengths, batch, data), num_graphs

    def _checked_tensors(self, data: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        for name in (keys.POSITIONS, keys.ATOM_TYPES, keys.EDGE_INDEX):
            if name not in data:
                raise InputError(f"the graph has no {name!r}; build it with nequip_fast.data.graph_from_atoms")
        positions, types, edge_index = data[keys.POSITIONS], data[keys.ATOM_TYPES].reshape(-1), data[keys.EDGE_INDEX]
        _check_dtype(keys.POSITIONS, positions, torch.float64)
        _check_dtype(keys.ATOM_TYPES, types, torch.int64)
        _check_dtype(keys.EDGE_INDEX, edge_index, torch.int64)
        device = next(self.parameters()).device
        if not positions.device == types.device == edge_index.device == device:
            raise InputError(
                f"positions, types and edges are on {positions.device}, {types.device} and {edge_index.device}, "
                f"but the model on {device}; move all to one device"
            )
        if positions.dim() != 2 or positions.shape[1] != 3:
            raise InputError(f"{keys.POSITIONS!r} must be [N, 3], not {list(positions.shape)}")
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise InputError(f"{keys.EDGE_INDEX!r} must be [2, E], not {list(edge_index.shape)}")
        if types.shape[0] != positions.shape[0]:
            raise InputError(f"the graph has {positions.shape[0]} positions but {types.shape[0]} atom types")
        if types.numel() and not traced():
            low, high = (int(bound) for bound in torch.aminmax(types))
            if low < 0 or high >= len(self.type_names):
                raise InputError(
                    f"atom type {low if low < 0 else high} is unknown to this model, which has types "
                    f"0 to {len(self.type_names) - 1} ({', '.join(self.type_names)}); train or load one that has it"
                )
        if edge_index.numel() and not traced():
            low, high = (int(bound) for bound in torch.aminmax(edge_index))
            if low < 0 or high >= positions.shape[0]:
                raise InputError(
                    f"an edge names atom {low if low < 0 else high}, but the graph has {positions.shape[0]} atoms; "
                    "build the edges from these positions"
                )
        return positions, types, edge_index


def _check_dtype(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise InputError(f"{name!r} must be {dtype}, not {tensor.dtype}; convert it with .to({dtype})")


def _check_values(positions: Tensor, lengths: Tensor) -> None:
    """One reduction each: positions finite, every edge of a length that is not zero."""
    if not math.isfinite(positions.detach().sum().item()):
        bad = int((~torch.isfinite(positions).all(dim=1)).nonzero()[0])
        raise InputError(f"the position of atom {bad} is not finite; check the structure or the time step")
    shortest = lengths.detach().min().item() if lengths.numel() else 1.0
    if math.isnan(shortest):
        raise InputError("an edge has no finite length; check the cell and the edges' cell shifts")
    if not shortest > 0:
        raise InputError("two atoms are at the same place (an edge has no length); remove one of them")


def _num_graphs(data: Mapping[str, Tensor]) -> int:
    if keys.NUM_ATOMS in data:
        return data[keys.NUM_ATOMS].numel()
    if keys.CELL in data:
        return data[keys.CELL].reshape(-1, 3, 3).shape[0]
    batch = data.get(keys.BATCH)
    return 1 if batch is None else int(batch.max()) + 1 if batch.numel() else 0


@contextmanager
def _constant_parameters(module: nn.Module) -> Iterator[None]:
    """Record no gradients of parameters: a fused operator would compute them beside the one that forces need."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _sum_by_graph(values: Tensor, batch: Tensor | None, num_graphs: int) -> Tensor:
    if batch is None:
        return values.sum(dim=0, keepdim=True)
    return values.new_zeros(num_graphs, *values.shape[1:]).index_add(0, batch, values)


def _strain_gradient(geometry: EdgeGeometry, gradient: Tensor, num_graphs: int) -> Tensor:
    """dE/dstrain [B, 3, 3] for a symmetric strain: Σ r ⊗ dE/dr over the edges, symmetrised.

    Knuth et al., Comput. Phys. Commun. 190, 33 (2015).
    """
    vectors = geometry.vectors.detach() if geometry.vectors.is_leaf else geometry.vectors
    if num_graphs == 1:
        outer = (vectors.T @ gradient).unsqueeze(0)
    else:
        assert geometry.batch is not None
        outer = _sum_by_graph(
            vectors.unsqueeze(2) * gradient.unsqueeze(1), geometry.batch[geometry.edge_index[0]], num_graphs
        )
    return 0.5 * (outer + outer.transpose(1, 2))


def _volume(cell: Tensor, num_graphs: int) -> Tensor:
    """[B, 1, 1] in Å³; NaN where a structure has no volume, so that its stress is NaN and not infinite."""
    volume = torch.linalg.det(cell.reshape(-1, 3, 3)).abs().expand(num_graphs).view(-1, 1, 1)
    return torch.where(volume > 0, volume, torch.full_like(volume, math.nan))
