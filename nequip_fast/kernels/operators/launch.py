"""How an operator runs its kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, triton_op, wrap_triton

from nequip_fast.kernels.tuning import Launch, Tile, chosen
from nequip_fast.ops import backend

# Interpreted kernels are no part of a graph: an operator that runs them is opaque to torch.compile.
operator: Any = custom_op if backend.INTERPRETED else triton_op


def launch(
    kernel: Any, programs: Callable[[Tile], Any], *arguments: Any, tiles: Sequence[Tile], **constants: Any
) -> None:
    """Run a kernel on the device of its first argument.

    Args:
        programs: how many, for a tile.
        tiles: the block sizes that it may have, the first by rule of thumb.
    """
    constants = {k: int(v) if isinstance(v, torch.SymInt) else v for k, v in constants.items()}  # widths, never counts
    tile = chosen(Launch(kernel, programs, arguments, constants, tiles))
    run = (kernel if backend.INTERPRETED else wrap_triton(kernel))[(programs(tile),)]
    if torch.version.cuda is None:
        run(*arguments, **constants, **tile)
        return
    with torch.cuda.device_of(arguments[0]):  # Triton's own choice is the current device
        run(*arguments, **constants, **tile)


def contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Rows as the kernels read them."""
    return tuple(tensor.contiguous() for tensor in tensors)


def indices(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors of a graph as the kernels read them."""
    if any(tensor.dtype != torch.int64 for tensor in tensors):
        raise RuntimeError("the tensors of a graph must be int64")
    return contiguous(*tensors)
