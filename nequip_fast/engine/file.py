"""Compiled models on disk: ``*.nqf``, safetensors files with the program in their JSON header. Loading runs no code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from nequip_fast.engine.program import (
    Channels,
    Envelope,
    GateStep,
    Layer,
    LinearMap,
    Path,
    Program,
    RadialBasis,
    RadialNetwork,
    RadialTable,
    ReadoutLayer,
    Repulsion,
)
from nequip_fast.errors import InputError
from nequip_fast.files import Format, load_tensors, save_tensors

_FORMAT = Format("nequip_fast.potential", 4, "a compiled model", "compile it again")
_TENSOR = "tensor"  # {"tensor": name} stands for a tensor of the file


def write(path: str | os.PathLike[str], program: Program, dtype: torch.dtype, report: Mapping[str, Any]) -> None:
    """Write a program to ``path`` in one step."""
    tensors: dict[str, Tensor] = {}
    header = {
        **_FORMAT.header(),
        "dtype": str(dtype).removeprefix("torch."),
        "program": _encode(program, "program", tensors),
        "report": dict(report),
    }
    save_tensors(path, tensors, header)


def read(path: str | os.PathLike[str]) -> tuple[Program, torch.dtype, dict[str, Any]]:
    """(program, dtype, report) of the file.

    Raises:
        InputError: the file is missing, cut short, damaged, no compiled model, or written by a later version.
    """
    tensors, header = load_tensors(path)
    _FORMAT.check(path, header)
    try:
        program = _program(header["program"], _Tensors(tensors))
        dtype = {"float32": torch.float32, "float64": torch.float64}[header["dtype"]]
        return program, dtype, dict(header["report"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: its header is damaged ({type(error).__name__}: {error}); compile it again") from None


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_TENSOR: name}
    if is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name), f"{name}.{f.name}", tensors) for f in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{name}.{k}", tensors) for k, item in enumerate(value)]
    return value


class _Tensors:
    """The tensors of a file, all finite float64."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __call__(self, reference: Mapping[str, str]) -> Tensor:
        tensor = self._tensors[reference[_TENSOR]]
        if tensor.dtype != torch.float64 or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{reference[_TENSOR]} is not finite float64")
        return tensor

    def optional(self, reference: Mapping[str, str] | None) -> Tensor | None:
        return None if reference is None else self(reference)


def _program(value: Mapping[str, Any], tensor: _Tensors) -> Program:
    names = [str(name) for name in value["type_names"]]
    basis, repulsion = value["basis"], value["repulsion"]
    return Program(
        type_names=names,
        cutoff=_shaped(tensor(value["cutoff"]), len(names), len(names)),
        l_max=int(value["l_max"]),
        embedding=tensor(value["embedding"]),
        basis=RadialBasis(
            tensor(basis["frequencies"]),
            float(basis["scale"]),
            Envelope(str(basis["envelope"]["kind"]), float(basis["envelope"]["parameter"])),
        ),
        layers=[_layer(layer, tensor) for layer in value["layers"]],
        readout=[ReadoutLayer(tensor(layer["matrix"]), str(layer["activation"])) for layer in value["readout"]],
        scale=_shaped(tensor(value["scale"]), len(names)),
        shift=_shaped(tensor(value["shift"]), len(names)),
        repulsion=None
        if repulsion is None
        else Repulsion(float(repulsion["factor"]), float(repulsion["exponent"]), tensor(repulsion["numbers"])),
    )


def _shaped(tensor: Tensor, *shape: int) -> Tensor:
    if tensor.shape != shape:
        raise ValueError(f"a tensor is {list(tensor.shape)} instead of {list(shape)}")
    return tensor


def _layer(value: Mapping[str, Any], tensor: _Tensors) -> Layer:
    def channels(name: str) -> list[Channels]:
        return [Channels(int(segment["l"]), int(segment["mul"])) for segment in value[name]]

    def maps(name: str) -> list[LinearMap]:
        return [LinearMap(int(m["source"]), int(m["target"]), tensor(m["matrix"])) for m in value[name]]

    return Layer(
        sent=channels("sent"),
        summed=[int(l) for l in value["summed"]],
        before_gate=channels("before_gate"),
        radial=_radial(value["radial"], tensor),
        paths=[
            Path(int(p["source"]), int(p["l2"]), int(p["target"]), int(p["first"]), float(p["coefficient"]))
            for p in value["paths"]
        ],
        mix=maps("mix"),
        gate=[
            GateStep(int(g["source"]), int(g["gate"]), str(g["activation"]), float(g["constant"]))
            for g in value["gate"]
        ],
        send=maps("send"),
        self_connection=maps("self_connection"),
        sent_by_type=tensor.optional(value["sent_by_type"]),
        bias_by_type=tensor.optional(value["bias_by_type"]),
        residual=bool(value["residual"]),
    )


def _radial(value: Mapping[str, Any], tensor: _Tensors) -> RadialNetwork | RadialTable:
    if "values" in value:
        network = _radial(value["network"], tensor)
        if not isinstance(network, RadialNetwork):
            raise ValueError("a table is not of a network")
        values = tensor(value["values"])
        return RadialTable(_shaped(tensor(value["knots"]), values.shape[0]), values, network)
    return RadialNetwork(
        [tensor(matrix) for matrix in value["matrices"]],
        str(value["activation"]),
        float(value["constant"]),
        tensor.optional(value["combinations"]),
    )
