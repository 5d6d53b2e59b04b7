"""The engine on a GPU: a step from positions to forces and stress, captured as a CUDA graph where it is repeated."""

from __future__ import annotations

from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nequip_fast.engine.network import Network
from nequip_fast.engine.pairs import Edges, Geometry, Pairs, edges_within, near
from nequip_fast.engine.program import Program
from nequip_fast.ops import Graph, backend, segment_sum

_WRONG = (
    "two atoms are at the same place (closer than 0.001 Å); remove one of them",
    "a distance is not finite; check the cell and the positions",
    "a position is not finite; check the structure or the time step",
)
_SPARE, _MULTIPLE = 1.05, 1024  # room in a captured step: so many times what there is, in multiples of this

_CAPTURING = Lock()  # torch allows one capture at a time

PairList = tuple[Tensor, Tensor, Tensor]  # ptr, neighbour, shift: those of atom i are ptr[i] … ptr[i + 1] − 1


class DeviceEngine:
    """Evaluates a program with torch's operators on one device.

    Args:
        program: what to compute.
        dtype: of the network; geometry and energies are float64.
        device: where; on a GPU, steps with pairs that are kept are captured and run as one CUDA graph.
    """

    @torch.inference_mode(False)
    def __init__(self, program: Program, dtype: torch.dtype, device: torch.device) -> None:
        network = Network(program, dtype).requires_grad_(False).to(device)
        # a program made in inference mode has tensors that autograd does not take
        self.network = network._apply(lambda tensor: tensor.clone() if tensor.is_inference() else tensor)
        self.cutoff = program.cutoff.double().to(device)
        self.device = self.cutoff.device  # of the current GPU its number, which may be another one later
        self.num_prepared = 0  # steps that are kept and were not those before with other positions and pairs
        self._atoms: _Atoms | None = None
        self._step: _Step | None = None
        self._turn = Lock()

    @torch.inference_mode(False)
    @torch.no_grad()
    def evaluate(
        self, positions: Tensor, types: Tensor, structure: Tensor, cells: Tensor, pairs: PairList, kept: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies [N], forces [N, 3] and dE/dstrain [B, 9], float64, on the CPU; calls take turns.

        Args:
            positions: [N, 3]; types and structure: [N]; cells: [B, 9]; on the CPU.
            pairs: at least all within the cutoff; on the CPU or the device.
            kept: what the pairs belong to: if it equals that of the call before, so do the pairs, and types and
                structure are not looked at if they are the same tensors. None: nothing is kept.

        Raises:
            RuntimeError: a type, structure or atom that is not there; positions that are not finite, two atoms at one
                place.
        """
        with self._turn:
            if kept is None:
                atoms = _Atoms.of(types, structure, cells.shape[0], self.cutoff)
                found = _Step(self, atoms, self._uploaded(atoms, pairs, len(pairs[1])), False)(positions, cells)
            else:
                if not self._has_prepared(types, structure, kept):
                    self._prepare(types, structure, cells.shape[0], pairs, kept)
                assert self._step is not None
                try:
                    found = self._step(positions, cells)
                except BaseException:  # of a capture, which leaves nothing that could go on
                    self._step = None
                    raise
        for failed, message in zip(found[-len(_WRONG) :].tolist(), _WRONG, strict=True):
            if failed:
                raise RuntimeError(message)
        energies, forces, strain = found[: -len(_WRONG)].split([len(types), 3 * len(types), cells.numel()])
        return energies, forces.view(-1, 3), strain.view(-1, 9)

    def _has_prepared(self, types: Tensor, structure: Tensor, kept: Any) -> bool:
        step = self._step
        return step is not None and step.kept == kept and step.atoms.come_from(types, structure)

    def _prepare(self, types: Tensor, structure: Tensor, structures: int, pairs: PairList, kept: Any) -> None:
        """The step for these atoms and pairs: the one before with others in its memory, if they fit."""
        if self._atoms is None or not self._atoms.equal(types, structure, structures):
            self._step, self._atoms = None, None
            self._atoms = _Atoms.of(types, structure, structures, self.cutoff)
        atoms = self._atoms = self._atoms._replace(given=(types, structure))
        captured, count = self._can_capture(), len(pairs[1])
        if captured and self._step is not None and count <= self._step.room:
            self._step.kept = None  # until they are there
            self._step.refill(self._uploaded(atoms, pairs, self._step.room))
        else:
            self._step = None  # its memory is free before there is another
            room = _with_spare(count) if captured else count
            self._step = _Step(self, atoms, self._uploaded(atoms, pairs, room), captured)
            self.num_prepared += 1
        self._step.atoms, self._step.kept = atoms, kept

    def _uploaded(self, atoms: _Atoms, pairs: PairList, room: int) -> Pairs:
        ptr, neighbour, shift = (tensor.to(self.device) for tensor in pairs)
        _check_range(neighbour, len(atoms.types), "engine: a pair names an atom out of range")
        if int(ptr[0]) != 0 or int(ptr[-1]) != len(neighbour) or bool((ptr.diff() < 0).any()):
            raise RuntimeError("engine: the pairs are not in order")
        return Pairs.of_list(ptr, neighbour, shift, atoms.place, room)

    def _can_capture(self) -> bool:
        """On a GPU, with kernels that walk along the pointers: plain torch takes all edges that a tensor holds."""
        like = self.cutoff.to(self.network.dtype)
        return like.is_cuda and all(backend.choose(name, like) != "reference" for name in ("conv", "segment_sum"))


class _Atoms(NamedTuple):
    """Types and structures of atoms that move: ``order`` sorts them by type, ``place`` is where each of them went.

    ``given`` are the caller's tensors, which it may change; ``values`` what they were.
    """

    given: tuple[Tensor, Tensor]
    values: tuple[Tensor, Tensor]
    order: Tensor
    place: Tensor
    types: Tensor
    counts: list[int]
    structure: Tensor
    structures: int
    by_structure: Graph  # atoms as edges that arrive at their structure

    @classmethod
    def of(cls, types: Tensor, structure: Tensor, structures: int, cutoff: Tensor) -> _Atoms:
        """On the device of ``cutoff`` [types, types]."""
        _check_range(types, len(cutoff), "an atom type is unknown to this potential")
        _check_range(structure, structures, "engine: a structure is out of range")
        device = cutoff.device
        order = torch.argsort(types, stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        ends = torch.stack([structure[order], torch.zeros_like(order)])
        return cls(
            (types, structure), (types.clone(), structure.clone()),
            order.to(device), place.to(device), types[order].to(device),
            torch.bincount(types, minlength=len(cutoff)).tolist(), structure[order].to(device), structures,
            Graph(*(tensor.to(device) for tensor in Graph.from_edge_index(ends, max(structures, 1)))),
        )  # fmt: skip

    def come_from(self, types: Tensor, structure: Tensor) -> bool:
        """Whether it was these very tensors."""
        return self.given[0] is types and self.given[1] is structure

    def equal(self, types: Tensor, structure: Tensor, structures: int) -> bool:
        """Whether they are of the same types and structures."""
        return self.structures == structures and all(map(torch.equal, self.values, (types, structure)))


class _Step:
    """A step with memory for positions, cells and pairs of its own.

    Args:
        engine: whose network and cutoff it takes.
        atoms, pairs: what they are.
        fixed_size: of all tensors, whatever the number of edges, so that it can be captured.
    """

    kept: Any = None
    captured: torch.cuda.CUDAGraph | None = None
    edge_room: int | None = None  # for so many edges; None: as many as there are

    def __init__(self, engine: DeviceEngine, atoms: _Atoms, pairs: Pairs, fixed_size: bool) -> None:
        self.network, self.cutoff, self.atoms, self.pairs = engine.network, engine.cutoff, atoms, pairs
        self.fixed_size = fixed_size
        self.positions = torch.zeros(len(atoms.types), 3, dtype=torch.float64, device=engine.device)
        self.cells = torch.zeros(atoms.structures, 3, 3, dtype=torch.float64, device=engine.device)
        self.found: Tensor | None = None

    @property
    def room(self) -> int:
        """For so many pairs."""
        return len(self.pairs.centre)

    def refill(self, pairs: Pairs) -> None:
        """Other pairs in the place of those before."""
        for old, new in zip(self.pairs, pairs, strict=True):
            old.copy_(new)

    def __call__(self, positions: Tensor, cells: Tensor) -> Tensor:
        """Energies, forces, dE/dstrain and what is wrong, one after the other, on the CPU."""
        self.positions.copy_(positions)
        self.cells.copy_(cells.view(-1, 3, 3))
        if self.fixed_size and self.edge_room is None:
            self._make_room()
        *found, too_many_edges = self._run().split([self._results, 1])
        if too_many_edges:
            self._make_room()
            *found, _ = self._run().split([self._results, 1])
        return found[0]

    @property
    def _results(self) -> int:
        return 4 * len(self.positions) + self.cells.numel() + len(_WRONG)

    def _make_room(self) -> None:
        """For the edges there are now and some more: fewer than pairs by as much as the skin of the list is thick."""
        self.captured = self.found = None  # its memory is free before there is another
        edges = int(near(self.pairs, self._geometry()).within.sum())
        self.edge_room = min(_with_spare(edges), self.room)
        self.capture()

    def capture(self) -> None:
        """As a CUDA graph; what is compiled when first run has to be before."""
        with _CAPTURING, torch.cuda.device(self.positions.device):
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(2):
                    self._compute()
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            # torch's own stream is that of the device that captured first; other threads may go on meanwhile
            with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
                self.found = self._compute()
            self.captured = graph

    def _run(self) -> Tensor:
        if self.captured is None:
            self.found = self._compute()
        else:
            self.captured.replay()
        assert self.found is not None
        return self.found.cpu()

    def _geometry(self) -> Geometry:
        atoms = self.atoms
        return Geometry(self.positions[atoms.order], self.cells, atoms.structure, atoms.types, self.cutoff)

    def _edges(self) -> tuple[Edges, Tensor]:
        """The edges, and what is wrong."""
        geometry = self._geometry()
        edges = edges_within(self.pairs, geometry, near(self.pairs, geometry), self.edge_room)
        not_finite = ~torch.isfinite(geometry.positions).all()
        return edges, torch.stack([edges.same_place, edges.not_finite, not_finite, edges.too_many])

    def _compute(self) -> Tensor:
        atoms = self.atoms
        edges, wrong = self._edges()
        energies, pull = self.network(edges.vectors, edges.cutoff, edges.graph, atoms.types, atoms.counts)
        forces = segment_sum(pull, edges.graph) - segment_sum(pull, edges.graph.reversed())
        strain = segment_sum((edges.vectors.unsqueeze(2) * pull.unsqueeze(1)).flatten(1), edges.graph)
        # a structure's atoms are summed by one thread a column: for a single one there is a better way
        strain = strain.sum(0) if atoms.structures == 1 else segment_sum(strain, atoms.by_structure)
        parts = energies[atoms.place], forces[atoms.place], strain, wrong.double()
        return torch.cat([part.flatten() for part in parts])


def _with_spare(count: int) -> int:
    return -int(-count * _SPARE // _MULTIPLE) * _MULTIPLE


def _check_range(values: Tensor, end: int, message: str) -> None:
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < end:
        raise RuntimeError(message)
