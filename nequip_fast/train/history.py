"""metrics.csv: one line per epoch, whole lines only."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from nequip_fast.files import write_text


class History:
    """Rows of numbers in a CSV file, also kept in memory for the plot."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, float]] = []

    def append(self, row: dict[str, Any]) -> None:
        """Add one line, in a single write: a process that is killed leaves no half of it."""
        line = ",".join(f"{value:.10g}" if isinstance(value, float) else str(value) for value in row.values()) + "\n"
        if not self.path.exists():
            write_text(self.path, ",".join(row) + "\n" + line)
        else:
            with open(self.path, "ab", buffering=0) as file:
                file.write(line.encode())
        self.rows.append(row)

    def keep_until(self, epoch: int) -> None:
        """Load the rows up to ``epoch`` and drop those after it, which will be computed again."""
        self.rows = [row for row in read_history(self.path) if row["epoch"] <= epoch]
        if self.path.exists():
            lines = self.path.read_text().splitlines()[: len(self.rows) + 1]
            write_text(self.path, "\n".join(lines) + "\n")


def read_history(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a metrics.csv; an empty list where there is no such file."""
    if not Path(path).exists():
        return []
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
