"""From a trained model to a :class:`~nequip_fast.engine.potential.Potential`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nequip_fast.engine.describe import describe
from nequip_fast.engine.potential import Potential
from nequip_fast.engine.verify import deviation, graphs_of, sample_graphs
from nequip_fast.errors import InputError
from nequip_fast.model import GraphModel

if TYPE_CHECKING:
    from ase import Atoms

_FEWEST, _MOST = 64, 8192  # intervals of the radial tables
_TABLE_ERROR = {torch.float32: 1e-6, torch.float64: 1e-8}  # of the largest value; a slope's error is ten times that


def compile(
    model: GraphModel,
    *,
    dtype: torch.dtype | None = None,
    tolerance: float = 1e-5,
    verify: bool | Sequence[Atoms] = True,
    intervals: int | None = None,
) -> Potential:
    """Specialise a trained model for energies, forces and stress on the CPU.

    Args:
        model: as trained; it is not changed.
        dtype: ``torch.float32`` or ``torch.float64``, of the network; by default the model's own.
        tolerance: largest deviation of a force from the model's that is accepted, eV/Å, or relative to the largest
            force where that is more than 1 eV/Å.
        verify: structures to compare with the model on; True: random boxes of its types; False: none.
        intervals: of the radial tables; by default as many as make their error negligible.

    Raises:
        InputError: the model has a part that the engine does not know, or the deviation exceeds the tolerance.
    """
    dtype = dtype or model.model_dtype
    program, table_error = _with_tables(model, dtype, intervals)
    report: dict[str, Any] = {"intervals": program.intervals, "table_error": table_error, "tolerance": tolerance}
    potential = Potential(program, dtype, report)
    if verify is not False:
        graphs = sample_graphs(len(model.type_names), model.r_max) if verify is True else graphs_of(model, verify)
        found = deviation(potential, model, graphs)
        potential.report["deviation"] = asdict(found)
        limit = tolerance * max(1.0, found.largest_force)
        if not found.force <= limit:
            raise InputError(
                f"the compiled model's forces differ from the model's by {found.force:.1e} eV/Å, and {limit:.1e} are "
                f"accepted; {_culprit(model, intervals, graphs, limit)}"
            )
    return potential


def _with_tables(model: GraphModel, dtype: torch.dtype, intervals: int | None) -> tuple[Any, float]:
    """The program and the error of its tables."""
    if intervals is not None:
        return describe(model, intervals)
    intervals = _FEWEST
    while True:
        program, error = describe(model, intervals)
        if error <= _TABLE_ERROR[dtype] or intervals >= _MOST:
            return program, error
        intervals *= 2


def _culprit(model: GraphModel, intervals: int | None, graphs: Sequence[Mapping[str, Tensor]], limit: float) -> str:
    """Which part of compiling makes the difference: the same in float64 has the tables' error alone."""
    program, _ = _with_tables(model, torch.float64, intervals)
    exact = deviation(Potential(program, torch.float64), model, graphs)
    if exact.force > limit and model.model_dtype == torch.float64:
        return "the radial tables do; give more intervals"
    return "rounding does; compile with dtype=torch.float64, or accept a larger tolerance"
