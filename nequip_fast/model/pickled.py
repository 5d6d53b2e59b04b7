"""The weights in a pickled torch module, read without doing anything that the pickle says.

A pickle names classes and functions and asks for them to be called. Here every name stands for something inert, but for
plain containers, so that nothing is imported and nothing runs; of the modules that come out, only names and numbers are
taken.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

_CONTAINERS = {("collections", "OrderedDict"): OrderedDict, ("builtins", "set"): set, ("__builtin__", "set"): set}
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "BFloat16Storage": torch.bfloat16,
    "HalfStorage": torch.float16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_OURS = "model_from_package"  # which nequip-package has a model of our builders made of its settings and weights


class Inert:
    """What stands for any object; ``state`` is what the pickle says is in it."""

    state: Any = None

    def __new__(cls, *_arguments: Any, **_named: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, _item: Any) -> None:
        """As a list does."""

    def __setitem__(self, _key: Any, _value: Any) -> None:
        """As a dict does."""


class _Numbers(NamedTuple):
    """A storage of a file that is not read yet."""

    dtype: torch.dtype
    key: str
    numel: int


class _Stored(NamedTuple):
    """A tensor in a storage."""

    storage: _Numbers
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A new object for each name, so that nothing a pickle does to it outlasts the reading."""
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return lambda storage, offset, shape, stride, *_: _Stored(storage, offset, shape, stride)
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return lambda data, *_: data
        return type(name, (Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage":
            _, dtype, key, _location, count = pid
            return _Numbers(dtype, str(key), int(count))
        if isinstance(pid, tuple) and len(pid) == 4 and getattr(pid[2], "__name__", "") == _OURS:
            config, weights, _training = pid[3]
            module = Inert()
            module.state = {"_parameters": weights, "type_names": config["type_names"]}
            return module
        return Inert()  # code that was packaged along


def load_module(pickled: bytes) -> Any:
    """What is in ``pickled``, with :class:`Inert` for every object; errors are those of :mod:`pickle`, and others."""
    return _Unpickler(io.BytesIO(pickled)).load()


def state_dict(module: Any, read: Callable[[str], bytes]) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a module from :func:`load_module`, by their names in torch.

    Args:
        read: the bytes of a storage.

    Raises:
        ValueError, TypeError, RuntimeError, …: it does not hold together.
    """
    return {name: _tensor(stored, read) for name, stored in _walk(module, "")}


def read_storages(archive: zipfile.ZipFile, folder: str, suffix: str = ".storage") -> Callable[[str], bytes]:
    """For :func:`state_dict`: storages that lie in an archive as ``folder``/key and ``suffix``, that of packages."""
    return lambda key: archive.read(f"{folder}/{key}{suffix}")


def _walk(module: Any, prefix: str) -> Iterator[tuple[str, _Stored]]:
    state = module.state if isinstance(module, Inert) else None
    if not isinstance(state, Mapping):
        return
    if "_parameters" not in state:  # TorchScript keeps all of them side by side
        for name, value in state.items():
            if isinstance(value, _Stored):
                yield f"{prefix}{name}", value
            yield from _walk(value, f"{prefix}{name}.")
        return
    hidden = state.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if isinstance(value, _Stored) and name not in hidden:
                yield f"{prefix}{name}", value
    for name, child in (state.get("_modules") or {}).items():
        yield from _walk(child, f"{prefix}{name}.")


def _tensor(stored: _Stored, read: Callable[[str], bytes]) -> Tensor:
    dtype, key, numel = stored.storage
    data = bytearray(read(key))
    if len(data) != numel * dtype.itemsize:
        raise ValueError(f"storage {key} holds {len(data)} bytes instead of {numel * dtype.itemsize}")
    numbers = torch.frombuffer(data, dtype=dtype) if numel else torch.empty(0, dtype=dtype)
    return torch.as_strided(numbers, stored.shape, stored.stride, stored.offset).clone()
