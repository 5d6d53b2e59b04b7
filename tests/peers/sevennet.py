"""SevenNet's shipped models compiled, beside SevenNet's own calculator: python tests/peers/sevennet.py

Every structure of tests/integrations/structures.py, in float32 against SevenNetCalculator and in float64 against
SevenNet built in float64; results go to sevennet.md and sevennet.json beside this file. Needs the package sevenn.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import sevenn._const as sevenn_const  # noqa: E402
from ase.stress import voigt_6_to_full_3x3_stress  # noqa: E402
from sevenn.calculator import SevenNetCalculator  # noqa: E402
from sevenn.checkpoint import SevenNetCheckpoint  # noqa: E402
from sevenn.model_build import build_E3_equivariant_model  # noqa: E402

from nequip_fast.data import graph_from_atoms, keys  # noqa: E402
from nequip_fast.dtypes import default_dtype  # noqa: E402
from nequip_fast.engine import compile  # noqa: E402
from nequip_fast.integrations.sevennet import SevenNet  # noqa: E402
from tests.integrations.structures import structures  # noqa: E402

MODELS = {  # path and modality
    "SevenNet-0": (sevenn_const.SEVENNET_0_11Jul2024, None),
    "SevenNet-l3i5": (sevenn_const.SEVENNET_l3i5, None),
    "SevenNet-MF-0 PBE": (sevenn_const.SEVENNET_MF_0, "PBE"),
    "SevenNet-MF-0 R2SCAN": (sevenn_const.SEVENNET_MF_0, "R2SCAN"),
}
QUANTITIES = ("energy", "forces", "stress")
LIMITS = {"engine_from_float64": 1e-5, "engine64": 1e-7}
FLOOR = {"energy": 0.0, "forces": 1.0, "stress": 1e-3}  # eV, eV/Å, eV/Å³: smaller values are compared to these


def main() -> int:
    warnings.simplefilter("ignore")
    rows: dict[str, list[dict[str, Any]]] = {name: compare(*model) for name, model in MODELS.items()}
    (HERE / "sevennet.json").write_text(json.dumps({"versions": versions(), "rows": rows}, indent=1) + "\n")
    (HERE / "sevennet.md").write_text(markdown(rows))
    failed = False
    for comparison, limit in LIMITS.items():
        worst = max(row[comparison][quantity] for model in rows.values() for row in model for quantity in QUANTITIES)
        print(f"{COMPARISONS[comparison]}: {worst:.1e} at most, {limit:.0e} accepted")
        failed |= not worst <= limit
    return int(failed)


def compare(path: str, modal: str | None) -> list[dict[str, Any]]:
    """For every structure the differences, relative to the largest value of the structure's or 1 eV/Å, 1 meV/Å³."""
    exact = in_float64(path)
    engine, engine64 = compile(path, modal=modal), compile(exact, modal=modal, verify=False)
    calculator, source = SevenNetCalculator(path, device="cpu", modal=modal), SevenNet(exact, modal)
    rows = []
    for atoms in structures():
        calculator.calculate(atoms)
        theirs = values(calculator.results["energy"], calculator.results["forces"], calculator.results["stress"])
        reference = of_graph(source.evaluate(graph_from_atoms(atoms, source.type_names, source.r_max)))
        ours, ours64 = (prediction(potential(atoms)) for potential in (engine, engine64))
        periodic = bool(atoms.pbc.any())
        rows.append(
            {
                "structure": str(atoms.symbols),
                "atoms": len(atoms),
                "engine": differences(ours, theirs, periodic),
                "sevennet": differences(theirs, reference, periodic),
                "engine_from_float64": differences(ours, reference, periodic),
                "engine64": differences(ours64, reference, periodic),
            }
        )
    return rows


def in_float64(path: str) -> torch.nn.Module:
    """SevenNet's model with all constants native to float64."""
    checkpoint = SevenNetCheckpoint(path)
    weights = {name: value for name, value in checkpoint.build_model().state_dict().items() if "_w3j" not in name}
    with default_dtype(torch.float64):
        model = build_E3_equivariant_model(checkpoint.config).double()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("_w3j" in name for name in missing)
    return model


def values(energy: Any, forces: Any, stress: Any) -> dict[str, np.ndarray]:
    full = None if stress is None else voigt_6_to_full_3x3_stress(stress) if np.size(stress) == 6 else stress
    return {"energy": np.asarray(energy), "forces": np.asarray(forces), "stress": np.asarray(full)}


def prediction(found: Any) -> dict[str, np.ndarray]:
    return values(found.energy, found.forces, found.stress)


def of_graph(output: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return values(float(output[keys.TOTAL_ENERGY]), output[keys.FORCES].numpy(), output[keys.STRESS][0].numpy())


def differences(found: Any, expected: Any, periodic: bool) -> dict[str, float]:
    return {
        name: float(np.abs(found[name] - expected[name]).max() / max(np.abs(expected[name]).max(), FLOOR[name]))
        for name in QUANTITIES
        if periodic or name != "stress"
    } | ({} if periodic else {"stress": 0.0})


def versions() -> dict[str, str]:
    return {package: version(package) for package in ("sevenn", "torch", "e3nn", "numpy", "ase")}


COMPARISONS = {
    "engine": "engine, float32, from SevenNet's calculator (float32)",
    "engine_from_float64": "engine, float32, from SevenNet in float64",
    "sevennet": "SevenNet's calculator (float32) from SevenNet in float64",
    "engine64": "engine, float64, from SevenNet in float64",
}


def markdown(rows: dict[str, list[dict[str, Any]]]) -> str:
    structures_seen = next(iter(rows.values()))
    elements = {symbol for atoms in structures() for symbol in atoms.symbols}
    lines = [
        "# SevenNet's models compiled, beside SevenNet",
        "",
        "Made by `python tests/peers/sevennet.py` with "
        + ", ".join(f"{package} {number}" for package, number in versions().items())
        + f": {len(structures_seen)} shaken structures of {len(elements)} elements.",
        "Differences are relative: of the energy to the energy, of forces and stress to the structure's largest, or to",
        f"{FLOOR['forces']:g} eV/Å and {FLOOR['stress']:g} eV/Å³ where that is less. The largest over all structures:",
        "",
        "| model | difference | energy | forces | stress |",
        "|---|---|---|---|---|",
    ]
    for name, of_model in rows.items():
        for key, label in COMPARISONS.items():
            cells = " | ".join(f"{max(row[key][quantity] for row in of_model):.0e}" for quantity in QUANTITIES)
            lines.append(f"| {name} | {label} | {cells} |")
    lines += [
        "",
        "SevenNet evaluates the polynomial cutoff function of l3i5 in float32, where its terms cancel near the cutoff",
        "(to 5e-6); the engine's is tabulated in float64. So the engine is the nearer to SevenNet in float64.",
        "",
        f"Each structure, {COMPARISONS['engine']}:",
        "",
    ]
    lines += ["| structure | atoms | " + " | ".join(f"{name}: {q}" for name in rows for q in QUANTITIES) + " |"]
    lines += ["|---" * (2 + len(rows) * len(QUANTITIES)) + "|"]
    for of_structure in zip(*rows.values(), strict=True):
        cells = " | ".join(f"{row['engine'][quantity]:.0e}" for row in of_structure for quantity in QUANTITIES)
        lines.append(f"| {of_structure[0]['structure']} | {of_structure[0]['atoms']} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
