"""What a training run shows while it runs: a progress bar with live errors, a line per epoch, the plot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nequip_fast.errors import require

if TYPE_CHECKING:
    from nequip_fast.train.history import History
    from nequip_fast.train.trainer import Position

_PLOT_EVERY = 30.0  # seconds; and never more than 2 % of the time


class Reporter:
    """Prints to the terminal; silent when ``quiet`` (the other processes of a parallel run).

    Args:
        log_every: epochs between printed lines.
        plot: where the learning curve is drawn.
        trivial: errors of the trivial predictor on the validation set, drawn for comparison.
    """

    def __init__(self, log_every: int = 1, plot: Path | None = None, quiet: bool = False):
        self.console = require("rich.console", "train").Console(quiet=quiet, highlight=False)
        self.trivial: Mapping[str, float] = {}
        self._log_every = log_every
        self._plot = None if quiet else plot
        self._plotted_at = time.monotonic()
        self._plot_cost = 0.0
        self._progress: Any = None
        self._errors = "no validation yet"
        self._printed_head = False

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def live(self, num_batches: int, position: Position) -> Iterator[None]:
        """Show the progress bars while the block runs. Not drawn where the output is not a terminal."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(16), TextColumn("{task.percentage:3.0f} %"))
        progress = Progress(
            *columns,
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            refresh_per_second=4,
            transient=True,
            disable=self.console.quiet or not self.console.is_terminal,
        )
        self._run = progress.add_task("training", total=1.0, note=self._errors)
        self._batches = progress.add_task("epoch", total=num_batches, completed=position.batch, note="")
        self._progress = progress
        with progress:
            yield

    def step(self, position: Position, used: float) -> None:
        """One update done; ``used`` is the fraction of the epochs or the time that is gone."""
        if self._progress.disable:
            return
        self._progress.update(self._run, completed=used, note=self._errors)
        self._progress.update(self._batches, completed=position.batch, description=f"epoch {position.epoch + 1}")

    def epoch(self, row: Mapping[str, float], is_best: bool, history: History) -> None:
        """One epoch done: print its line, and draw the learning curve now and then."""
        parts = [f"{name} {_milli(row, f'val_{name}_mae')} {unit}" for name, unit in _UNITS if f"val_{name}_mae" in row]
        self._errors = "MAE " + ", ".join(parts)
        if int(row["epoch"]) % self._log_every == 0:
            self._print_row(row, is_best)
        now = time.monotonic()
        if self._plot is not None and now - self._plotted_at > max(_PLOT_EVERY, 50 * self._plot_cost):
            self.draw(history)

    def draw(self, history: History) -> None:
        """Draw the learning curve."""
        if self._plot is None or not history.rows:
            return
        from nequip_fast.train.plots import learning_curve

        started = time.monotonic()
        learning_curve(history.rows, self._plot, self.trivial)
        self._plotted_at = time.monotonic()
        self._plot_cost = self._plotted_at - started

    def _print_row(self, row: Mapping[str, float], is_best: bool) -> None:
        if not self._printed_head:
            self._printed_head = True
            self.say(f"{'':>6} {'loss':^21} {'validation MAE (RMSE)':^35}")
            self.say(
                f"{'epoch':>6} {'training':>10} {'validation':>10} {'meV/atom':>17} {'meV/Å':>17} {'rate':>8} {'s':>7}"
            )
        energy, forces = (
            f"{_milli(row, f'val_{name}_mae')} ({_milli(row, f'val_{name}_rmse')})" for name in ("energy", "forces")
        )
        self.say(
            f"{int(row['epoch']):>6} {row['train_loss']:>10.3g} {row['val_loss']:>10.3g} {energy:>17} {forces:>17} "
            f"{row['learning_rate']:>8.2g} {row['elapsed_s']:>7.1f}{' *' if is_best else ''}"
        )


_UNITS = (("energy", "meV/atom"), ("forces", "meV/Å"))


def _milli(row: Mapping[str, float], name: str) -> str:
    return f"{1000 * row[name]:.3g}" if name in row else "-"


def error_table(errors: Mapping[str, float], trivial: Mapping[str, float], title: str) -> Any:
    """A rich table of MAE and RMSE beside the trivial predictor's RMSE, in meV/atom, meV/Å and meV/Å³."""
    table = require("rich.table", "train").Table(title=title, title_justify="left", title_style="bold")
    for name in ("", "MAE", "RMSE", "trivial MAE", "trivial RMSE", "unit"):
        table.add_column(name, justify="left" if name in ("", "unit") else "right")
    for name in (key.removesuffix("_mae") for key in errors if key.endswith("_mae")):
        unit = {"energy": "meV/atom", "stress": "meV/Å³"}.get(name, "meV/Å")
        label = {"energy": "energy per atom"}.get(name, name)
        label = f"  on {name.removeprefix('forces_')}" if name.startswith("forces_") else label
        cells = [f"{1000 * source[f'{name}_{kind}']:.4g}" for source in (errors, trivial) for kind in ("mae", "rmse")]
        table.add_row(label, *cells, unit)
    return table
