"""From a trained model to a :class:`~nequip_fast.engine.potential.Potential`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nequip_fast.engine.passes import EXACT, PASSES, reduce_rank, tabulate
from nequip_fast.engine.potential import Potential, check_dtype
from nequip_fast.engine.program import Program, RadialNetwork, RadialTable
from nequip_fast.engine.report import sizes
from nequip_fast.engine.source import Source, source_of
from nequip_fast.engine.verify import Deviation, deviation, graphs_of, sample_graphs
from nequip_fast.errors import InputError, nearest

if TYPE_CHECKING:
    from ase import Atoms

RADIAL = "table", "exact"
_REMEDY = {
    "fold": "so does the model itself when it is run in float64; accept a larger tolerance",
    "table": 'give more intervals, or radial="exact"',
    "rank": 'leave it out with skip=["rank"]',
    "rounding": "compile with dtype=torch.float64, or accept a larger tolerance",
}


def compile(
    model: nn.Module | str | os.PathLike[str],
    *,
    trust: bool = False,
    modal: str | None = None,
    dtype: torch.dtype | None = None,
    radial: str = "table",
    tolerance: float = 1e-5,
    verify: bool | Sequence[Atoms] = True,
    threads: int | None = None,
    intervals: int | None = None,
    skip: Collection[str] = (),
) -> Potential:
    """Specialise a trained model for energies, forces and stress, on the CPU; ``to("cuda")`` takes it to a GPU.

    Args:
        model: as trained, ours or SevenNet's; it is not changed. Or the path of ``model.safetensors``, of a checkpoint
            (``.ckpt``) or package (``.nequip.zip``) of nequip, or of a checkpoint of SevenNet or nequip 0.5 or 0.6
            (``.pth``).
        trust: read a checkpoint that holds pickled objects, which can run any code.
        modal: of a multi-modal model of SevenNet, which modality to evaluate, such as ``"PBE"``.
        dtype: ``torch.float32`` or ``torch.float64``, of the network; by default the model's own.
        radial: ``table`` replaces the radial networks by quintic Hermite tables, ``exact`` evaluates them, their last
            matrices factorised to the rounding of ``dtype`` (pass ``rank``).
        tolerance: largest deviation of a force from the model's that is accepted, eV/Å, or relative to the largest
            force where that is more than 1 eV/Å.
        verify: structures to compare with the model on; True: random boxes of its types; False: none.
        threads: at most as many as torch may use; by default all of these.
        intervals: of the radial tables; by default as many as make their error negligible.
        skip: names of passes to leave out (:data:`nequip_fast.engine.passes.PASSES`).

    Raises:
        InputError: an argument is out of range, the file cannot be read, the model has a part that the engine does not
            know, or the deviation exceeds the tolerance; then it says which pass causes it.
    """
    if radial not in RADIAL:
        raise InputError(f"radial must be {' or '.join(RADIAL)}, not {radial!r}{nearest(str(radial), RADIAL)}")
    for name in skip:
        if name not in PASSES:
            raise InputError(f"there is no pass {name!r} to skip{nearest(name, PASSES)} ({', '.join(PASSES)})")
    source = source_of(model, trust, modal)
    dtype = check_dtype(dtype or source.dtype)
    stages: dict[str, Program] = {"fold": source.program()}
    program = stages["fold"]
    for name, transform in EXACT.items():
        if name not in skip:
            program = stages[name] = transform(program)
    report: dict[str, Any] = {"tolerance": tolerance, "radial": radial}
    if modal is not None:
        report["modal"] = modal
    if radial == "table":
        program, report["table_errors"] = tabulate(program, dtype, intervals)
        report["intervals"] = _intervals(program)
        stages["table"] = program
    elif "rank" not in skip:
        program, report["rank_errors"] = reduce_rank(program, dtype)
        report["ranks"] = _ranks(program)
        stages["rank"] = program
    report["sizes"] = {name: sizes(stage) for name, stage in stages.items()}
    potential = Potential(program, dtype, report, threads)
    if verify is not False:
        graphs = sample_graphs(len(source.type_names), source.r_max) if verify is True else graphs_of(source, verify)
        _check(potential, source, stages, graphs, tolerance)
    return potential


def _intervals(program: Program) -> list[int]:
    return [layer.radial.values.shape[0] - 1 for layer in program.layers if isinstance(layer.radial, RadialTable)]


def _ranks(program: Program) -> list[int]:
    return [layer.radial.matrices[-1].shape[0] for layer in program.layers if isinstance(layer.radial, RadialNetwork)]


def _check(
    potential: Potential,
    source: Source,
    stages: Mapping[str, Program],
    graphs: Sequence[Mapping[str, Tensor]],
    tolerance: float,
) -> None:
    """Compare with the source; add the deviation, and what each pass adds to it, to the report."""
    expected = [source.evaluate(graph) for graph in graphs]
    compiled = [potential.evaluate(graph) for graph in graphs]
    found = deviation(expected, compiled)
    added: dict[str, Deviation] = {}
    before = expected
    for name, program in stages.items():
        after = [Potential(program, torch.float64).evaluate(graph) for graph in graphs]
        added[name] = deviation(before, after)
        before = after
    added["rounding"] = deviation(before, compiled)
    potential.report["deviation"] = asdict(found)
    potential.report["passes"] = {name: asdict(part) for name, part in added.items()}
    limit = tolerance * max(1.0, found.largest_force)
    if not found.force <= limit:
        worst = max(added, key=lambda name: (added[name].force != added[name].force, added[name].force))  # NaN first
        raise InputError(
            f"the compiled model's forces differ from the model's by {found.force:.1e} eV/Å, and {limit:.1e} are "
            f"accepted; {added[worst].force:.1e} of it comes from {worst!r}: "
            f"{_REMEDY.get(worst, f'leave it out with skip=[{worst!r}], and report it')}"
        )
