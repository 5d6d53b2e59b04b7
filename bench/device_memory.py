"""What a captured step of the engine takes of a GPU's memory, counted without one.

    python bench/device_memory.py [--cases M-2097152 L-262144] [--json bench/results/device-memory.json]

The step runs on tensors that have sizes and no contents, as if all CUDA kernels were there. ``allocated`` is the most
that is alive at once, with what is kept between steps; ``reserved`` is what torch's caching allocator then asks the
driver for: it takes the best fitting free block, split where more than a mebibyte is left. Atoms have 46 neighbours
within the cutoff of 5 Å and a list of pairs with a skin of 0.5 Å. The driver's own half a gigabyte is not in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.engine_gpu import engine_of
from bench.timing import machine
from nequip_fast.engine.on_device import _SPARE, DeviceEngine, _Atoms, _Step
from nequip_fast.engine.pairs import Pairs
from nequip_fast.files import write_text
from nequip_fast.ops import Graph, backend, conv_of_rows

_NEIGHBOURS, _WITH_SKIN = 46, (5.5 / 5) ** 3
_SMALL, _LARGE, _ROUND, _UNIT = 1 << 20, 10 << 20, 2 << 20, 512  # of torch's allocator; small blocks are left out
_VIEWS = (torch.ops.aten._unsafe_view.default,)  # too
DEFAULT = ["S-64", "M-64", "L-64", "S-2097152", "M-32768", "M-2097152", "L-32768", "L-1048576"]


class Allocator:
    """torch's caching allocator for large blocks."""

    def __init__(self) -> None:
        self.reserved = 0
        self._segments: list[list[tuple[int, int, bool]]] = []  # blocks: begin, size, whether it is used
        self._places: dict[int, tuple[int, int]] = {}

    def take(self, key: int, size: int) -> None:
        """The block that fits best, or a new segment."""
        size = -(-size // _UNIT) * _UNIT
        if size <= _SMALL:
            return
        fitting = [
            (block[1], s, i)
            for s, segment in enumerate(self._segments)
            for i, block in enumerate(segment)
            if not block[2] and block[1] >= size
        ]
        if not fitting:
            new = -(-size // _ROUND) * _ROUND if size >= _LARGE else 2 * _LARGE
            self.reserved += new
            self._segments.append([(0, new, False)])
            fitting = [(new, len(self._segments) - 1, 0)]
        whole, s, i = min(fitting)
        begin = self._segments[s][i][0]
        rest = [(begin + size, whole - size, False)] if whole - size > _SMALL else []
        self._segments[s][i : i + 1] = [(begin, size if rest else whole, True), *rest]
        self._places[key] = s, begin

    def give_back(self, key: int) -> None:
        """A block; it is joined with free ones beside it."""
        if key not in self._places:
            return
        s, begin = self._places.pop(key)
        joined: list[tuple[int, int, bool]] = []
        for start, size, used in self._segments[s]:
            used = used and start != begin
            if joined and not used and not joined[-1][2]:
                joined[-1] = joined[-1][0], joined[-1][1] + size, False
            else:
                joined.append((start, size, used))
        self._segments[s] = joined


class Count(TorchDispatchMode):
    """Follows the storages that operators make."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated, self.calls, self.allocator = 0, 0, Allocator()
        self._alive: dict[int, tuple[Any, int, int]] = {}  # storage -> (whether it is there, bytes, number)
        self._number = 0

    def alive(self) -> int:
        """Bytes."""
        for storage in [storage for storage, (there, *_) in self._alive.items() if there.expired()]:
            self.allocator.give_back(self._alive.pop(storage)[2])
        return sum(size for _, size, _ in self._alive.values())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.alive()
        self.calls += not (function.is_view or function.namespace == "prim" or function in _VIEWS)
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._alive:
                    self._number += 1
                    self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes(), self._number
                    self.allocator.take(self._number, storage.nbytes())
        self.allocated = max(self.allocated, self.alive())
        return result


@contextmanager
def _all_kernels() -> Iterator[None]:
    """As on a GPU, on the CPU: which kernels are taken, and no look at what tensors hold."""
    with (
        mock.patch.object(backend, "EMULATED", True),
        mock.patch.object(backend, "_not_compiled", return_value=""),  # only a library built with nvcc could say
        mock.patch.dict(backend.DEVICES, cpu=("cuda",)),
        mock.patch.object(conv_of_rows, "_check"),
    ):
        yield


@torch.library.register_fake("nequip_fast::hermite")
def _hermite(x: Tensor, knots: Tensor, single: bool) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.float32 if single else torch.float64
    rows = x.new_empty(len(x), 6, dtype=dtype)
    return x.new_empty(len(x), dtype=torch.int64), rows, torch.empty_like(rows)


@torch.library.register_fake("nequip_fast::linear")
def _linear(rows: Tensor, weights: Tensor, counts: Any, width: int, *rest: Any) -> Tensor:
    return rows.new_empty(len(rows), width)


def count(name: str) -> dict[str, Any]:
    """Of one case, MODEL-ATOMS."""
    model, atoms = name.split("-")
    engine, number = engine_of(model, torch.device("cpu")), int(atoms)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), _all_kernels():
        engine.network._apply(torch.empty_like)
        engine.cutoff = torch.empty_like(engine.cutoff)
        with Count() as counted:
            _step(engine, number)._compute()
    return {
        "atoms": number,
        "operators": counted.calls,
        "allocated_bytes_per_atom": round(counted.allocated / number),
        "reserved_bytes_per_atom": round(counted.allocator.reserved / number),
        "reserved_gigabytes": round(counted.allocator.reserved / 1e9, 2),
    }


def _step(engine: DeviceEngine, atoms: int) -> _Step:
    edges = atoms * _NEIGHBOURS
    pairs = int(edges * _WITH_SKIN * _SPARE)

    def index(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    one = index(atoms)
    graph = Graph(one, one, index(2), one, index(2), one)
    types = [atoms // 2, atoms - atoms // 2]
    of_pairs = [index(pairs, *more, dtype=torch.int32) for more in ((), (), (3,), ())]
    step = _Step(
        engine,
        _Atoms((one, one), (one, one), one, one, one, types, one, 1, graph),
        Pairs(*of_pairs[:3], index(atoms + 1), index(atoms + 1), of_pairs[3]),
        fixed_size=True,
    )
    step.edge_room = int(edges * _SPARE)
    return step


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=DEFAULT, metavar="MODEL-ATOMS")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = {}
    for name in arguments.cases:
        rows[name] = count(name)
        print(name, json.dumps(rows[name]), flush=True)
    if arguments.json:
        write_text(arguments.json, json.dumps({"machine": machine("cpu"), "cases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
