"""Throughput of one trained model: our kernels, the same model on e3nn's operators, and nequip itself.

python bench/throughput.py model.safetensors structure.xyz
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.peers import e3nn
from bench.peers import nequip as nequip_peer
from bench.timing import interleaved, keep_freed_memory
from nequip_fast.data import collate, graph_from_atoms, read_structures
from nequip_fast.model import load_model


@dataclass(frozen=True)
class Throughput:
    """Energy and forces of one batch by one contender.

    ``slower`` is the time relative to nequip_fast in the same round: (median, lowest, highest).
    """

    batch: int
    contender: str
    milliseconds: float
    atoms_per_second: float
    slower: tuple[float, float, float]


def throughput(
    model_path: str | os.PathLike[str], structure: Any, batches: Sequence[int] = (1, 16), rounds: int = 5
) -> tuple[list[Throughput], dict[str, str]]:
    """Time energy and forces of ``structure`` (an ase.Atoms), alone and in batches of copies.

    Every contender has the same weights and must agree with ours on the forces before it is timed.

    Returns:
        One row per batch size and contender, and the contenders left out with the reason.
    """
    keep_freed_memory()
    mine = load_model(model_path)
    models: dict[str, torch.nn.Module] = {"nequip_fast": mine, "e3nn operators": e3nn.on_e3nn(mine)}
    absent = {}
    if reason := nequip_peer.missing():
        absent["nequip"] = reason
    else:
        models["nequip"] = nequip_peer.twin(mine)
    rows = []
    for batch in batches:
        graph = collate([graph_from_atoms(structure, mine.type_names, mine.r_max)] * batch)
        expected = mine(dict(graph))["forces"].detach()
        calls: dict[str, Callable[[], Any]] = {}
        for name, model in models.items():
            forces = model.eval()(dict(graph))["forces"].detach()
            error = float((forces - expected).norm() / expected.norm().clamp(min=1e-12))
            assert error < 1e-4, f"{name} computes other forces: relative difference {error:.1e}"
            calls[name] = lambda model=model, graph=graph: model(dict(graph))
        timings = interleaved(calls, "cpu", rounds, seconds_a_round=0.2)
        for name, timing in timings.items():
            rate = batch * len(structure) / timing.median
            slower = timing.ratio_to(timings["nequip_fast"])
            rows.append(Throughput(batch, name, 1e3 * timing.median, rate, slower))
    return rows, absent


def throughput_table(model_path: str | os.PathLike[str], structure: Any) -> Any:
    """:func:`throughput` as a rich table."""
    from rich.table import Table

    rows, absent = throughput(model_path, structure)
    result = Table(title=f"energy and forces of this model, {torch.get_num_threads()} threads", title_justify="left")
    for column in ("batch", "", "ms", "atoms/s", "times longer (lowest–highest)"):
        result.add_column(column, justify="left" if not column else "right")
    for row in rows:
        ratio = "1" if row.contender == "nequip_fast" else "{:.3g}× ({:.3g}–{:.3g})".format(*row.slower)
        result.add_row(str(row.batch), row.contender, f"{row.milliseconds:.3g}", f"{row.atoms_per_second:.3g}", ratio)
    for name, reason in absent.items():
        result.add_row("", name, "–", "–", reason)
    return result


if __name__ == "__main__":
    from rich.console import Console

    if len(sys.argv) != 3:
        sys.exit("usage: python bench/throughput.py MODEL.safetensors STRUCTURES")
    first = read_structures(sys.argv[2], index="0", require_labels=False)[0]
    Console().print(throughput_table(sys.argv[1], first))
