"""nequip's commands with the modifier enable_NequipFast and without: python tests/peers/nequip_modifier.py

Trainings from one seed, eager and with ``compile_mode: compile``; a package of the trained model, compiled ahead of
time for ASE; nequip's interface to LAMMPS' ML-IAP. Results go to nequip_modifier.md beside this file. Takes two minutes
and a C++ compiler; needs the package nequip.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import nequip_fast.integrations.nequip  # noqa: E402, F401  as nequip's entry point does
from nequip_fast.dtypes import default_dtype  # noqa: E402
from tests.integrations import nequip_commands as commands  # noqa: E402
from tests.integrations.lammps_stand_in import evaluate  # noqa: E402
from tests.integrations.nequip_commands import MODIFIER  # noqa: E402
from tests.integrations.structures import shaken_copper  # noqa: E402
from tests.model.model_cases import nequip_globals  # noqa: E402

LIMIT = {"losses": 1e-6, "energy": 1e-10, "forces": 1e-10, "stress": 1e-10}
Row = tuple[str, str, float]  # what, quantity, largest difference


def main() -> int:
    """Run, write, and say by the exit code whether all differences are within the limits."""
    with tempfile.TemporaryDirectory() as name, nequip_globals(), default_dtype(torch.float64):
        rows = compare(Path(name))
    (HERE / "nequip_modifier.md").write_text(markdown(rows))
    print(markdown(rows))
    return int(any(not difference < LIMIT[quantity] for _, quantity, difference in rows))


def compare(folder: Path) -> list[Row]:
    package, compiled = folder / "model.nequip.zip", folder / "model.nequip.pt2"
    commands.run(
        folder,
        [
            commands.train(folder / "plain"),
            commands.train(folder / "eager", [MODIFIER]),
            commands.package(folder / "eager" / "last.ckpt", package),
            commands.compile(package, compiled, MODIFIER),
        ],
    )
    # in a process of its own: torch.compile keeps state
    commands.run(folder, [commands.train(folder / "compile", [MODIFIER], compile_mode="compile")])
    losses = commands.metrics(folder / "plain")
    rows = [
        (f"nequip-train, {mode}, three epochs", "losses", worst(commands.metrics(folder / mode), losses))
        for mode in ("eager", "compile")
    ]
    expected, found = in_ase(package), in_ase(compiled)
    rows += [
        ("nequip-package, nequip-compile, ASE", quantity, relative(found[quantity], expected[quantity]))
        for quantity in ("energy", "forces", "stress")
    ]
    plain, fast = (evaluate(package, shaken_copper(), modifiers) for modifiers in ([], [MODIFIER]))
    return [*rows, ("ML-IAP interface, eager", "forces", relative(fast.forces, plain.forces))]


def in_ase(model: Path) -> dict[str, torch.Tensor]:
    """Results of nequip's calculator."""
    from nequip.integrations.ase import NequIPCalculator

    load = NequIPCalculator.from_compiled_model if model.suffix == ".pt2" else NequIPCalculator._from_saved_model
    calculator = load(str(model), device="cpu", chemical_species_to_atom_type_map=True)
    calculator.calculate(shaken_copper())
    return {name: torch.as_tensor(value) for name, value in calculator.results.items()}


def worst(found: list[float], expected: list[float]) -> float:
    """Largest relative difference of two lists, as long as each other."""
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(found, expected, strict=True))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def markdown(rows: list[Row]) -> str:
    """The page."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("nequip", "torch", "e3nn"))
    return "\n".join(
        [
            f"# nequip's commands with the modifier {MODIFIER}",
            "",
            f"Made by `python tests/peers/nequip_modifier.py` with {packages}:",
            "shaken copper, a model of two layers to l = 2 with parity, float64, on the CPU. Differences from nequip",
            "without the modifier, eager, are relative: of each loss and metric of every step, of the energy, and of",
            "forces and stress to the largest.",
            "",
            "| what | quantity | largest difference |",
            "|---|---|---|",
            *(f"| {what} | {quantity} | {difference:.0e} |" for what, quantity, difference in rows),
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
