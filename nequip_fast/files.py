"""Files that are never half-written: everything goes to a temporary name and is renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nequip_fast.errors import InputError, require

_HEADER = "nequip_fast"


@dataclass(frozen=True)
class Format:
    """What a header says of its file: ``holds`` (with its article) and ``remedy`` are for the error messages."""

    name: str
    version: int
    holds: str
    remedy: str

    def header(self) -> dict[str, Any]:
        """The entries that :meth:`check` wants to see."""
        return {"format": self.name, "version": self.version}

    def check(self, path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        """InputError unless the header of the file ``path`` is of this format and version."""
        if header.get("format") != self.name:
            raise InputError(f"{path}: holds {header.get('format', 'something')!r}, not {self.holds}")
        if header.get("version") != self.version:
            raise InputError(
                f"{path}: format version {header.get('version')}, but this nequip_fast reads {self.version}; "
                f"{self.remedy}"
            )


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` only if the block succeeds."""
    path = Path(os.path.realpath(path))  # through a link, not over it
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; results are ordinary ones
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: str | os.PathLike[str]) -> str:
    """Fingerprint of a file's content, by which a resumed run can tell that its inputs changed."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write a safetensors file whose metadata carry ``header`` as JSON. No pickle, one rename."""
    safetensors = require("safetensors.torch", "train")
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        safetensors.save_file(contiguous, temporary, metadata={_HEADER: json.dumps(dict(header))})


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote: ``(tensors, header)``. Loading executes nothing.

    Raises:
        InputError: the file is missing, cut short, or not one of ours.
    """
    safetensors = require("safetensors", "train")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own type for every kind of damage
        raise InputError(f"{path}: not a readable safetensors file (truncated or damaged): {error}") from None
    if _HEADER not in metadata:
        raise InputError(f"{path}: a safetensors file, but not one written by nequip_fast (no {_HEADER!r} header)")
    try:
        return tensors, dict(json.loads(metadata[_HEADER]))
    except (ValueError, TypeError):
        raise InputError(f"{path}: its header is damaged; get or make the file again") from None


def load_checkpoint(
    path: str | os.PathLike[str], trust: bool = False, allowed: Sequence[Any] = ()
) -> Mapping[str, Any]:
    """A checkpoint of another package, on the CPU.

    Args:
        trust: unpickle objects where the file holds more than tensors and plain containers. A pickle can run any code.
        allowed: classes and functions that are harmless, as ``torch.serialization.safe_globals`` takes them.

    Raises:
        InputError: the file is missing or damaged, or needs ``trust=True``.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a readable checkpoint (truncated, damaged or of another kind)")
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not trust:
            raise InputError(
                f"{path}: this checkpoint holds pickled objects, which can run any code when read; if you trust where "
                "it comes from, pass trust=True"
            ) from None
    except RuntimeError as error:  # an archive that opens, with damage inside
        raise InputError(f"{path}: not a readable checkpoint: {str(error).splitlines()[0]}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except ImportError as error:
        raise InputError(f"{path}: reading it needs the package {error.name!r}; install that first") from None
