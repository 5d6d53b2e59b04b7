"""The engine in C++, csrc/cpu/engine, as Python holds it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from nequip_fast.engine.program import Program
from nequip_fast.errors import InputError
from nequip_fast.ops import backend


class CpuEngine:
    """Evaluates a program on the CPU.

    Args:
        program: what to compute.
        dtype: of the network; geometry and energies are float64.
        threads: at most as many as torch may use; None: all of these.

    Raises:
        InputError: the extension is not there.
        RuntimeError: the program does not hold together.
    """

    def __init__(self, program: Program, dtype: torch.dtype, threads: int | None) -> None:
        if not backend.compiled("engine_evaluate"):
            raise InputError("the inference engine needs the compiled extension; install with a C++ compiler")
        integers, numbers = program.lists()
        self._number = torch.ops.nequip_fast.engine_create(numbers, integers, dtype == torch.float64)
        self._threads = threads or 0
        weakref.finalize(self, torch.ops.nequip_fast.engine_destroy, self._number)

    def evaluate(
        self, positions: Tensor, types: Tensor, structure: Tensor, cells: Tensor, pairs: tuple[Tensor, Tensor, Tensor],
        kept: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """As :meth:`nequip_fast.engine.on_device.DeviceEngine.evaluate`; nothing is kept."""
        return torch.ops.nequip_fast.engine_evaluate(
            positions, types, structure, cells, *pairs, self._number, True, self._threads
        )
