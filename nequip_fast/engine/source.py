"""What can be compiled: a trained model that can say what it computes, and compute it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nequip_fast.engine.describe import NequIPSource
from nequip_fast.engine.program import Program
from nequip_fast.errors import InputError
from nequip_fast.model import (
    GraphModel,
    from_nequip_checkpoint,
    from_nequip_package,
    from_old_nequip,
    load_model,
)
from nequip_fast.model.convert import PACKAGE
from nequip_fast.model.old_nequip import is_old


class Source(Protocol):
    """A trained model, kept as it is.

    Attributes:
        type_names: chemical symbols of the types.
        r_max: largest cutoff, Å.
        dtype: of the network.
        cutoffs: ``per_edge_type_cutoff`` of the model, or None.
    """

    type_names: list[str]
    r_max: float
    dtype: torch.dtype
    cutoffs: Mapping[str, Any] | None

    def program(self) -> Program:
        """The model exactly, in float64."""
        ...

    def evaluate(self, graph: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Total energy [B, 1], forces [N, 3] and stress [B, 3, 3] of a graph of structures, by the model itself."""
        ...


def source_of(model: nn.Module | str | os.PathLike[str], trust: bool = False, modal: str | None = None) -> Source:
    """The source for a model of ours or of SevenNet, or for the file of one.

    Args:
        model: the model, or the path of ``model.safetensors``, of a checkpoint (``.ckpt``) or package
            (``.nequip.zip``) of nequip, or of a checkpoint of SevenNet or nequip 0.5 or 0.6 (``.pth``).
        trust: read a checkpoint that holds pickled objects.
        modal: which modality, of a multi-modal model of SevenNet.

    Raises:
        InputError: the file cannot be read, the model is of another kind, or has a part that the engine does not know.
    """
    from nequip_fast.integrations import sevennet

    if isinstance(model, (str, os.PathLike)):
        suffix = Path(model).suffix
        if suffix == ".pth" and not is_old(model):
            return sevennet.load(model, trust, modal)
        if suffix == ".pth":
            model = from_old_nequip(model)
        elif suffix == ".ckpt":
            model = from_nequip_checkpoint(model, trust)
        else:
            package = Path(model).name.endswith(PACKAGE)
            model = from_nequip_package(model, trust) if package else load_model(model)
    if sevennet.is_model(model):
        return sevennet.SevenNet(model, modal)
    if isinstance(model, GraphModel):
        if modal is not None:
            raise InputError(f"modal={modal!r}: the model is not multi-modal; leave it out")
        return NequIPSource(model)
    raise InputError(f"only models of NequIP and SevenNet can be compiled, not {type(model).__name__}")
