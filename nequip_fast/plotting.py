"""Figures without pyplot, so that no window system and no global state is involved."""

from __future__ import annotations

import os
from typing import Any

from nequip_fast.errors import require
from nequip_fast.files import atomic_path


def new_figure(columns: int, size: tuple[float, float], rows: int | None = None) -> tuple[Any, Any]:
    """A figure of ``size`` inches with a row of axes, or ``rows`` of them, open to the top and the right.

    Returns:
        ``(figure, axes)``: a list of axes, or a list for each of the rows.
    """
    figure = require("matplotlib.figure", "md").Figure(figsize=size, layout="constrained", dpi=150)
    axes = figure.subplots(rows or 1, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes if rows else axes[0]


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write the figure in one step; the suffix of ``path`` is the format."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
