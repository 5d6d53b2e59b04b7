"""What makes a program cheaper without changing what it computes: each pass takes a program and returns another.

They run in the order of :data:`PASSES`, each may be left out, and :func:`nequip_fast.compile` reports what each adds to
the deviation from the source model.
"""

from __future__ import annotations

from collections.abc import Callable

from nequip_fast.engine.passes.collapse import collapse
from nequip_fast.engine.passes.prune import prune
from nequip_fast.engine.passes.rank import reduce_rank
from nequip_fast.engine.passes.tabulate import tabulate
from nequip_fast.engine.program import Program

EXACT: dict[str, Callable[[Program], Program]] = {"prune": prune, "collapse": collapse}
"""Those that leave a program the same but for rounding of float64; :func:`tabulate` or :func:`reduce_rank` follows."""

PASSES = (*EXACT, "rank")
"""Those that may be skipped; ``rank`` is :func:`reduce_rank`."""

__all__ = ["EXACT", "PASSES", "collapse", "prune", "reduce_rank", "tabulate"]
