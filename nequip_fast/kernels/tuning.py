"""Which block sizes a kernel runs with: measured ones where somebody measured, else the rule of thumb.

Tables are JSON, ``{device: {problem: tile}}``: the one shipped beside this file, and the user's own, which :func:`tune`
writes and which goes first. A device is its model ("H100", "A100", …), a problem a digest of the kernel's name, what it
is compiled for and the types of its tensors: never the number of nodes or edges.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nequip_fast.errors import InputError
from nequip_fast.files import write_text
from nequip_fast.ops import backend

try:
    import fcntl
except ImportError:  # not everywhere
    fcntl = None  # type: ignore[assignment]

Tile = dict[str, Any]
SHIPPED = Path(__file__).with_name("tiles.json")
_MODELS = re.compile(r"\b(A100|H100|H200|GH200|B200|GB200)\b")
_SECONDS = 5e-3  # of a measurement
_TRIES = 5


class Launch(NamedTuple):
    """A kernel that ran, and the tiles it may run with, the rule of thumb first."""

    kernel: Any
    programs: Callable[[Tile], int]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    tiles: Sequence[Tile]

    @property
    def problem(self) -> str:
        """What tells it from others in a table: nothing that depends on the number of atoms."""
        types = tuple(str(a.dtype) if isinstance(a, Tensor) else "number" for a in self.arguments)
        constants = tuple((name, type(value), value) for name, value in sorted(self.constants.items()))
        return _digest(self.kernel.__name__, types, constants)

    def run(self, tile: Tile) -> None:
        """Launch it again."""
        self.kernel[(self.programs(tile),)](*self.arguments, **self.constants, **tile)


_heard: dict[str, Launch] | None = None  # what runs while tune() listens, by problem


def chosen(launch: Launch) -> Tile:
    """The tile it is to run with."""
    if len(launch.tiles) == 1:
        return launch.tiles[0]
    if _heard is not None:
        _heard.setdefault(launch.problem, launch)
    known = _table().get(_device(launch.arguments[0]))
    found = known.get(launch.problem) if known else None
    if found is not None and found["tile"] in launch.tiles:  # else of another version
        return found["tile"]
    return launch.tiles[0]


def own_file() -> Path:
    """Where :func:`tune` writes: ``tiles.json`` in ``NEQUIP_FAST_CACHE``, else in the user's cache folder."""
    folder = os.environ.get("NEQUIP_FAST_CACHE")
    if not folder:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nequip_fast")
    return Path(folder) / "tiles.json"


def tune(
    function: Callable[[], Any], seconds: float = 120.0, measure: Callable[[Launch, Tile], float] | None = None
) -> dict[str, Any]:
    """Find the fastest block sizes of all Triton kernels that a function runs, and keep them for this GPU.

    Kernels that take longest come first, until the time is spent; most of it goes to compiling. What was found is
    written to :func:`own_file` and used from then on, in this process and later ones, for any number of atoms and
    edges. Sums may be in another order than before: results change within rounding. A graph that torch has compiled
    keeps the block sizes that it was compiled with: tune the function first.

    Args:
        function: without arguments, not compiled by torch; for instance a step of training, or an evaluation of
            energies and forces.
        seconds: at most, after one call of the function, but for the tile that is being measured when they end.
        measure: seconds that a launch takes with a tile; for tests.

    Returns:
        Of each kernel for which others than the tile in force were measured, ``{problem: {"kernel", "tile",
        "microseconds", "microseconds_before"}}``.

    Raises:
        InputError: the function runs no Triton kernel that has a choice, or is compiled by torch.
    """
    launches = {problem: _apart(launch) for problem, launch in _heard_of(function).items()}
    measure, deadline = measure or _seconds_of, time.monotonic() + seconds
    before = {}
    for problem, launch in launches.items():
        if time.monotonic() < deadline:
            before[problem] = measure(launch, chosen(launch))
    found: dict[str, Any] = {}
    try:
        for problem in sorted(before, key=lambda problem: -before[problem]):
            launch, best, least, tried = launches[problem], chosen(launches[problem]), before[problem], False
            for tile in launch.tiles:
                if tile == chosen(launch) or time.monotonic() > deadline:
                    continue
                try:
                    taken, tried = measure(launch, tile), True
                except Exception:  # more registers or shared memory than there are, in the words of each Triton
                    continue
                if taken < least:
                    best, least = tile, taken
            if tried:
                found[problem] = {
                    "kernel": launch.kernel.__name__, "tile": best, "microseconds": round(1e6 * least, 2),
                    "microseconds_before": round(1e6 * before[problem], 2),
                }  # fmt: skip
    finally:  # also when it is interrupted
        if found:
            _keep(_device(next(iter(launches.values())).arguments[0]), found)
    return found


def _heard_of(function: Callable[[], Any]) -> dict[str, Launch]:
    """What a function launches.

    Raises:
        InputError: nothing, or on tensors that stand for others.
    """
    global _heard
    _heard = {}
    try:
        function()
        launches = _heard
    finally:
        _heard = None
    if not launches:
        reason = f": {backend.NO_TRITON}" if backend.NO_TRITON else "; tensors on a GPU do, with backend auto or triton"
        raise InputError(f"tune: the function runs no Triton kernel with a choice of block sizes{reason}")
    tensors = (a for launch in launches.values() for a in launch.arguments if isinstance(a, Tensor))
    if any(type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors):
        raise InputError("tune: the function is compiled by torch, which traced it; tune it before it is compiled")
    return launches


def _apart(launch: Launch) -> Launch:
    """With a result of its own: a kernel may add to its first argument, and the caller may have kept that."""
    result, *rest = launch.arguments
    return launch._replace(arguments=(result.clone(), *rest))


def _seconds_of(launch: Launch, tile: Tile) -> float:
    """The median of some runs on the GPU."""
    launch.run(tile)
    repeats = max(1, int(_SECONDS / max(_timed(launch, tile, 1), 1e-6) / _TRIES))
    return median(_timed(launch, tile, repeats) for _ in range(_TRIES))


def _timed(launch: Launch, tile: Tile, repeats: int) -> float:
    with torch.cuda.device_of(launch.arguments[0]):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            launch.run(tile)
        end.record()
        end.synchronize()
        return 1e-3 * start.elapsed_time(end) / repeats


def _keep(device: str, found: dict[str, Any]) -> None:
    path = own_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        table = _read(path)
        table.setdefault(device, {}).update(found)
        write_text(path, json.dumps(table, indent=1, sort_keys=True) + "\n")
    _table.cache_clear()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process that tunes reads or writes the file."""
    if fcntl is None:
        yield
        return
    with open(path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    """The shipped tiles with the user's own over them."""
    table: dict[str, Any] = {}
    for path in (SHIPPED, own_file()):
        for device, tiles in _read(path).items():
            table.setdefault(device, {}).update(tiles)
    return table


def _read(path: Path) -> dict[str, Any]:
    """Of a file; nothing if there is none, and a warning if it is damaged."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(entry["tile"], dict) for tiles in table.values() for entry in tiles.values()):
            return table
    except OSError:
        return {}
    except (ValueError, AttributeError, TypeError, KeyError):
        pass
    warnings.warn(f"nequip_fast: {path} is no table of block sizes and is ignored; delete it", stacklevel=2)
    return {}


@lru_cache(maxsize=4096)
def _digest(*described: Any) -> str:
    return hashlib.sha1(repr(described).encode()).hexdigest()[:16]


def _device(tensor: Tensor) -> str:
    """The model of its GPU."""
    if tensor.device.type != "cuda" or not torch.cuda.is_available():
        return "none"
    return _model(tensor.device.index or 0)


@lru_cache(maxsize=64)
def _model(index: int) -> str:
    name = torch.cuda.get_device_name(index)
    known = _MODELS.search(name)
    return known.group(1) if known else name
