"""How long coupled cluster takes for the energy and forces of toluene, beside a step of the inference engine.

    pip install pyscf
    python bench/ccsdt.py --json bench/results/ccsdt.json

The authors of NequIP say that an hour of it is worth a century of CCSD(T). Timed here is CCSD(T)/cc-pVDZ of toluene
with density fitting and frozen core (PySCF, all threads). Its analytic gradient does not fit into ordinary memory: it
is estimated by the ratio of gradient to energy that PySCF takes for smaller hydrocarbons, both without density fitting.
The engine runs the model of the paper (5 layers of 64 channels, l = 3, both parities), energy and forces through its
ASE calculator, and preset S.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_SMALL = ("C2H4", "C2H6", "C3H4_C2v")  # of ase.build.molecule
_YEAR = 365.25 * 24 * 3600


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result)"""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def molecule(atoms: Any) -> Any:
    """The same for PySCF."""
    from pyscf import gto

    return gto.M(atom=list(zip(atoms.symbols, atoms.positions.tolist(), strict=True)), basis="cc-pvdz", verbose=0)


def energy(atoms: Any, density_fitting: bool) -> tuple[float, Any]:
    """(eV, the coupled cluster object), frozen core."""
    from ase.units import Hartree
    from pyscf import cc, scf

    field = scf.RHF(molecule(atoms))
    field = (field.density_fit() if density_fitting else field).run()
    cluster = cc.CCSD(field, frozen=sum(symbol != "H" for symbol in atoms.symbols)).run()
    return Hartree * (cluster.e_tot + cluster.ccsd_t()), cluster


def gradient(cluster: Any) -> Any:
    """Analytic, with the triples."""
    from pyscf.grad import ccsd_t

    return ccsd_t.Gradients(cluster).kernel()


def engine_steps() -> dict[str, float]:
    """Seconds a step by model, in a process that PySCF has not touched."""
    import torch

    from bench.engine import CASES, engine_step

    torch.set_num_threads(2)
    seconds = {}
    for name in ("toluene-paper", "toluene-S"):
        step = engine_step(CASES[name])[0]
        seconds[name] = median(timed(step)[0] for _ in range(500))
    return seconds


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers and the machine to this file")
    arguments = parser.parse_args()
    from ase.build import molecule as small

    from bench.timing import machine
    from bench.toluene import toluene

    steps = engine_steps()
    ratios = {}
    for name in _SMALL:
        of_energy, (_, cluster) = timed(lambda name=name: energy(small(name), False))
        of_gradient, _ = timed(lambda cluster=cluster: gradient(cluster))
        ratios[name] = of_gradient / of_energy
        print(f"{name}: energy {of_energy:.1f} s, gradient {of_gradient:.1f} s after it", flush=True)
    seconds, (electronvolt, _) = timed(lambda: energy(toluene(), True))
    forces = seconds * (1 + median(ratios.values()))
    print(f"toluene: energy {seconds:.0f} s ({electronvolt:.3f} eV); with forces about {forces:.0f} s, estimated")
    for name, step in steps.items():
        print(
            f"{name}: {1e3 * step:.3f} ms a step: {seconds / step:.1e} times faster than the energy alone, "
            f"{forces / step:.1e} than energy and forces; one hour is worth {3600 / step * forces / _YEAR:.0f} years"
        )
    if arguments.json:
        result = {
            "machine": machine("cpu"),
            "cores": os.cpu_count(),
            "pyscf": version("pyscf"),
            "gradient_over_energy": ratios,
            "toluene_energy_seconds": seconds,
            "toluene_energy_ev": electronvolt,
            "toluene_forces_seconds_estimated": forces,
            "engine_seconds": steps,
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
