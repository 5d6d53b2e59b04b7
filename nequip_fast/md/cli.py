"""The command ``nequip-fast md``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nequip_fast.errors import InputError, nearest, require
from nequip_fast.md.config import MDConfig
from nequip_fast.md.dynamics import simulate
from nequip_fast.md.report import drift_verdict, plot_energy_conservation
from nequip_fast.md.trajectory import read_thermo

_POSITIONAL = ("model", "structure")
_EXAMPLES = """examples:
  nequip-fast md model.safetensors start.xyz --temperature_K 300 --time_ps 5
  nequip-fast md model.safetensors md/trajectory.traj --velocities structure --ensemble nve --time_ps 10 --output nve
the same command with --resume goes on where an interrupted run stopped, or makes a finished one longer"""


def main(argv: Sequence[str]) -> int:
    """Run molecular dynamics and say what came out; returns the exit status.

    Raises:
        InputError: see :func:`nequip_fast.md.simulate`.
    """
    config = parse(argv)
    console = require("rich.console", "md").Console(highlight=False)
    result = simulate(config, console=console)
    written = [result.trajectory, result.thermo]
    if result.new_steps:
        console.print(
            f"{result.new_steps} steps of {config.timestep_fs:g} fs at {result.steps_per_second:.4g} steps/s, "
            f"{result.ns_per_day:.3g} ns/day"
        )
    else:
        console.print("nothing left to do: the trajectory has that length already")
    console.print(f"{result.time_ps:g} ps in all, mean temperature {result.temperature_K:.1f} K")
    if result.drift is not None:
        console.print(drift_verdict(result.drift))
        written.append(Path(config.output) / "energy.png")
        plot_energy_conservation(read_thermo(result.thermo), result.num_atoms, written[-1])
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    return 0


def parse(argv: Sequence[str]) -> MDConfig:
    """The settings on a command line; dashes in option names count as underscores, unique beginnings suffice."""
    parser = _parser()
    known = [f"--{entry.name}" for entry in dataclasses.fields(MDConfig) if entry.name not in _POSITIONAL]
    options, unknown = parser.parse_known_args([_underscored(word) for word in argv])
    if unknown:
        raise InputError(f"md: unknown argument {unknown[0]!r}{nearest(unknown[0], known)}")
    return MDConfig(**vars(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nequip-fast md",
        description="Molecular dynamics with a trained model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hints = get_type_hints(MDConfig)
    for entry in dataclasses.fields(MDConfig):
        text = entry.metadata["help"]
        if entry.name in _POSITIONAL:
            parser.add_argument(entry.name, help=text)
            continue
        settings: dict[str, Any] = {"default": entry.default, "help": text}
        if hints[entry.name] is bool:
            settings["action"] = "store_true"
        else:
            settings |= _value_settings(hints[entry.name])
            if entry.default is not None:
                settings["help"] = f"{text} (default: {entry.default})"
        parser.add_argument(f"--{entry.name}", **settings)
    return parser


def _value_settings(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this type; an optional one as its only other type."""
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    plain = next((part for part in get_args(hint) if part is not type(None)), hint)
    return {"type": plain, "metavar": {int: "N", float: "X", str: "NAME"}[plain]}


def _underscored(word: str) -> str:
    """``--time-ps=5`` -> ``--time_ps=5``; values and short words stay."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
