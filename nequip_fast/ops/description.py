"""A problem as one line of numbers: what the compiled operators take. csrc/description.h reads it.

One string, since torch hands over a list of numbers one by one, which for many paths takes longer than a small kernel;
and the kernels know a string again that they have read before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def describe(widths: Sequence[int], rows: Iterable[Sequence[Any]]) -> str:
    """Row widths, then the rows: whole numbers each, and a coefficient at the end."""
    numbers = [value for *whole, coefficient in rows for value in (*map(int, whole), float(coefficient))]
    return " ".join(map(repr, (*widths, *numbers)))


def read(text: str, widths: int, row_length: int) -> tuple[list[int], list[list[Any]]]:
    """The ``widths`` numbers and the rows that :func:`describe` was given."""
    numbers = text.split()
    starts = range(widths, len(numbers), row_length)
    rows = [[*map(int, numbers[i : i + row_length - 1]), float(numbers[i + row_length - 1])] for i in starts]
    return [int(number) for number in numbers[:widths]], rows
