"""The main job on the data that ship with the project: train, test, simulate, compare, time.

    python demo/run.py            # about five minutes on two cores, writes demo/out
    python demo/run.py --quick    # the same steps in seconds, with a model that has learnt little

Run again after Ctrl-C (or a crash) and it goes on where it stopped; what is complete is not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench.throughput import throughput_table  # noqa: E402
from nequip_fast.errors import InputError, MissingExtra  # noqa: E402
from nequip_fast.files import write_text  # noqa: E402
from nequip_fast.md import MDConfig, read_thermo, read_trajectory, simulate  # noqa: E402
from nequip_fast.md.report import (  # noqa: E402
    Comparison,
    drift_verdict,
    plot_comparisons,
    plot_energy_conservation,
)
from nequip_fast.train import read_config  # noqa: E402
from nequip_fast.train.run import train  # noqa: E402

console = Console(highlight=False)


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of everything."""

    ethanol_training: tuple[str, ...] = ()  # overrides of ethanol.yaml
    water_training: tuple[str, ...] = ("training.max_time=75s",)
    ethanol_nvt_ps: float = 5.0
    ethanol_nve_ps: float = 4.0
    water_ps: float = 0.6
    batches: dict[str, tuple[int, ...]] = dataclasses.field(
        default_factory=lambda: {"ethanol": (1, 16), "water": (1, 4)}
    )
    timing_rounds: int = 5
    equilibration: float = 0.2  # first part of each NVT run that is not compared
    max_temperature_K: float | None = None  # None: the default of MDConfig


_LITTLE = (
    "data.n_train=12",
    "data.n_val=4",
    "data.n_test=4",
    "model.num_layers=2",
    "model.num_features=8",
    "training.max_epochs=2",
)
QUICK = Budget(
    ethanol_training=_LITTLE,
    water_training=_LITTLE,
    ethanol_nvt_ps=0.04,
    ethanol_nve_ps=0.04,
    water_ps=0.01,
    max_temperature_K=1e6,  # a model that has learnt little heats up
)


class Stages:
    """Runs the steps of the demo once each and remembers, beside their results, what went into them."""

    def __init__(self, out: Path) -> None:
        self.record = out / "stages.json"
        if not self.record.is_file():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise InputError(f"{out}: holds something that is not of this demo; name an empty folder with --out")
            write_text(self.record, "{}\n")
        self.known: dict[str, dict[str, Any]] = json.loads(self.record.read_text())
        for leftover in out.rglob(".*-*"):  # of a write that a kill cut short
            leftover.unlink()

    def run(
        self,
        title: str,
        folder: Path,
        inputs: Sequence[object],
        products: Sequence[Path],
        work: Callable[[], list[str]],
    ) -> None:
        """Do ``work`` unless it was completed with the same inputs; print its findings either way.

        Args:
            folder: where the work keeps its state; emptied when the inputs have changed.
            inputs: files (their content counts) and plain values.
            products: files the work leaves behind; if one is gone, it is done again.
            work: does the step, going on from what is in ``folder``; returns findings.
        """
        console.print()
        console.rule(f"[bold]{title}", align="left", style="dim")
        fingerprint = _hash(inputs)
        before = self.known.get(title, {})
        same = before.get("inputs") == fingerprint
        if same and "findings" in before and all(path.is_file() for path in products):
            console.print("[dim]complete already, with the same inputs: not repeated[/dim]")
        else:
            if not same:  # emptied before it is noted down: a kill in between empties it once more
                shutil.rmtree(folder, ignore_errors=True)
                self._remember(title, {"inputs": fingerprint})
            self._remember(title, {"inputs": fingerprint, "findings": work()})
        bullets = Table.grid(padding=(0, 1))
        for line in self.known[title]["findings"]:
            bullets.add_row("•", line)
        console.print(bullets)

    def _remember(self, title: str, entry: dict[str, Any]) -> None:
        self.known[title] = entry
        write_text(self.record, json.dumps(self.known, indent=1, ensure_ascii=False) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny budgets: shows that everything works, no more")
    parser.add_argument("--out", type=Path, help="folder for the results (default: demo/out, or runs/demo-quick)")
    options = parser.parse_args(argv)
    out = options.out or (ROOT / "runs" / "demo-quick" if options.quick else DEMO / "out")
    try:
        demonstrate(_short(out), QUICK if options.quick else Budget())
    except (InputError, MissingExtra) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        console.print("\ninterrupted; no file is left half-written, run the same command again to go on")
        return 130
    return 0


def demonstrate(out: Path, budget: Budget) -> None:
    """All steps, in order."""
    stages = Stages(out)
    fit(stages, "ethanol", out, budget)
    simulate_ethanol(stages, out, budget)
    fit(stages, "water", out, budget)
    simulate_water(stages, out, budget)
    time_model(out)
    list_files(out)


def fit(stages: Stages, name: str, out: Path, budget: Budget) -> None:
    """Train on the shipped data and report the errors on structures the model has not seen."""
    settings, data, folder = DEMO / f"{name}.yaml", DEMO / "data" / f"{name}.xyz", out / name
    changes = {"ethanol": budget.ethanol_training, "water": budget.water_training}[name]

    def work() -> list[str]:
        config = read_config(settings, [*changes, f"data.file={_short(data)}", f"output={folder}"])
        if train(config):
            raise KeyboardInterrupt
        return _test_errors(folder / "errors.json")

    products = [folder / file for file in ("model.safetensors", "errors.json", "parity.png", "learning_curve.png")]
    title = f"Train a NequIP potential for {name} and test it"
    stages.run(title, folder, [settings, data, changes], products, work)


def simulate_ethanol(stages: Stages, out: Path, budget: Budget) -> None:
    """NVT for comparison with the reference, then NVE for the conservation of energy."""
    model, data = out / "ethanol" / "model.safetensors", DEMO / "data" / "ethanol.xyz"
    bonds_plot, energy_plot = out / "ethanol-bonds.png", out / "ethanol-energy.png"
    nvt = MDConfig(
        model=str(model),
        structure=str(_short(data)),
        output=str(out / "ethanol-nvt"),
        temperature_K=500.0,
        time_ps=budget.ethanol_nvt_ps,
        interval=10,
        max_temperature_K=budget.max_temperature_K,
    )
    nve = dataclasses.replace(
        nvt,
        ensemble="nve",
        structure=str(Path(nvt.output) / "trajectory.traj"),
        output=str(out / "ethanol-nve"),
        time_ps=budget.ethanol_nve_ps,
    )

    def compare() -> list[str]:
        speed = _simulate(nvt)
        frames, reference = _equilibrated(nvt, budget), _reference(data)
        pairs = (("C", "O"), ("C", "H"), ("O", "H"))
        comparisons = [Comparison.of_bonds(frames, reference, pair) for pair in pairs]
        plot_comparisons(comparisons, bonds_plot, "GFN2-xTB", "ethanol at 500 K: bond lengths")
        return [speed, *(comparison.summary() for comparison in comparisons)]

    def conserve() -> list[str]:
        speed = _simulate(nve)
        log = read_thermo(Path(nve.output) / "thermo.csv")
        title = f"ethanol, NVE, {nve.timestep_fs:g} fs steps, {log['temperature_K'].mean():.0f} K on average"
        num_atoms = len(_reference(data)[0])
        return [speed, drift_verdict(plot_energy_conservation(log, num_atoms, energy_plot, title))]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nine atoms are too little work to share
    first, second = (Path(config.output) for config in (nvt, nve))
    title, products = "Ethanol at 500 K (NVT) against the reference trajectory", [first / "trajectory.traj", bonds_plot]
    stages.run(title, first, [model, data, nvt.physics(), budget], products, compare)
    title, products = "Ethanol without thermostat (NVE): is energy conserved?", [second / "thermo.csv", energy_plot]
    stages.run(title, second, [model, first / "trajectory.traj", nve.physics(), budget], products, conserve)
    torch.set_num_threads(threads)


def simulate_water(stages: Stages, out: Path, budget: Budget) -> None:
    """NVT of the periodic box, its O–O radial distribution function and O–H bond lengths."""
    model, data, plot = out / "water" / "model.safetensors", DEMO / "data" / "water.xyz", out / "water-structure.png"
    nvt = MDConfig(
        model=str(model),
        structure=str(_short(data)),
        output=str(out / "water-nvt"),
        temperature_K=330.0,
        timestep_fs=1.0,
        time_ps=budget.water_ps,
        interval=5,
        max_temperature_K=budget.max_temperature_K,
    )

    def compare() -> list[str]:
        speed = _simulate(nvt)
        frames, reference = _equilibrated(nvt, budget), _reference(data)
        r_max = 0.5 * float(reference[0].cell.lengths().min())
        comparisons = [
            Comparison.of_rdf(frames, reference, ("O", "O"), r_max),
            Comparison.of_bonds(frames, reference, ("O", "H")),
        ]
        plot_comparisons(comparisons, plot, "GFN1-xTB", "liquid water at 330 K")
        return [speed, *(comparison.summary() for comparison in comparisons)]

    folder = Path(nvt.output)
    title, products = "Liquid water at 330 K (NVT) against the reference trajectory", [folder / "trajectory.traj", plot]
    stages.run(title, folder, [model, data, nvt.physics(), budget], products, compare)


def time_model(out: Path) -> None:
    """The ethanol model against peers; measured anew each time, for it depends on what else the machine does."""
    console.print()
    console.rule("[bold]Throughput of the ethanol model", align="left", style="dim")
    ethanol = _reference(DEMO / "data" / "ethanol.xyz")[0]
    console.print(throughput_table(out / "ethanol" / "model.safetensors", ethanol))


def list_files(out: Path) -> None:
    """Every result with its size."""
    console.print()
    console.rule("[bold]Files", align="left", style="dim")
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        console.print(f"{_size(path.stat().st_size):>9}  {path}", soft_wrap=True)


def _simulate(config: MDConfig) -> str:
    result = simulate(dataclasses.replace(config, resume=True), console=console)
    line = f"{result.time_ps:g} ps at {result.temperature_K:.0f} K on average"
    return f"{line}, {result.ns_per_day:.3g} ns/day" if result.new_steps else line


def _equilibrated(config: MDConfig, budget: Budget) -> list[Any]:
    frames = read_trajectory(Path(config.output) / "trajectory.traj")
    return frames[int(budget.equilibration * len(frames)) :]


def _reference(path: Path) -> list[Any]:
    from nequip_fast.data import read_structures

    return read_structures(path)


def _test_errors(path: Path) -> list[str]:
    test = json.loads(path.read_text())["test"]
    return [
        f"test set of {test['structures']} structures: {what} MAE {1e3 * test['model'][key]:.3g} {unit}, trivial "
        f"predictor {1e3 * test['trivial'][key]:.3g} {unit}"
        for what, key, unit in (("forces", "forces_mae", "meV/Å"), ("energy", "energy_mae", "meV/atom"))
    ]


def _hash(inputs: Sequence[object]) -> str:
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, Path):
            if not item.is_file():
                raise InputError(f"{item}: missing; restore it, or delete the output folder to start again")
            digest.update(item.read_bytes())
        else:
            plain = dataclasses.asdict(item) if isinstance(item, Budget) else item
            digest.update(json.dumps(plain, sort_keys=True).encode())
    return digest.hexdigest()


def _short(path: Path) -> Path:
    """Relative to the working directory where that is shorter."""
    return min(path.resolve(), Path(os.path.relpath(path)), key=lambda form: len(str(form)))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


if __name__ == "__main__":
    sys.exit(main())
