"""``nequip-fast md``: the settings of :class:`MDConfig` as command-line options."""

from __future__ import annotations

import argparse
import inspect
import re
import types
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nequip_fast.md.config import MDConfig


def main(argv: Sequence[str]) -> int:
    """Run the simulation that the options describe."""
    options = make_parser().parse_args(argv)
    from nequip_fast.md import simulate

    result = simulate(MDConfig(**vars(options)))
    if result.new_steps:
        speed = f"{result.steps_per_second:.3g} steps/s, {result.ns_per_day:.3g} ns/day"
    else:
        speed = "nothing was left to do"
    print(f"{result.num_steps} steps, {result.time_ps:g} ps, mean temperature {result.temperature_K:.0f} K; {speed}")
    if result.drift is not None:
        print(f"conservation of the energy: {result.drift}")
    for path in (result.trajectory, result.thermo):
        print(f"wrote {path}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Options, defaults and explanations are those of :class:`MDConfig`."""
    parser = argparse.ArgumentParser(
        prog="nequip-fast md",
        description="Molecular dynamics with a trained model; give --steps or --time_ps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    explanations = _attributes(inspect.getdoc(MDConfig) or "")
    hints = get_type_hints(MDConfig)
    for entry in fields(MDConfig):
        explanation = explanations[entry.name].replace("%", "%%")
        if entry.default is MISSING:
            parser.add_argument(entry.name, help=explanation)
        elif hints[entry.name] is bool:
            parser.add_argument(f"--{entry.name}", action="store_true", help=explanation)
        else:
            kind = _kind(hints[entry.name])
            parser.add_argument(f"--{entry.name}", default=entry.default, help=explanation, **kind)
    return parser


def _kind(hint: Any) -> dict[str, Any]:
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return {"type": hint}


def _attributes(docstring: str) -> dict[str, str]:
    """The ``Attributes:`` section of a docstring as ``{name: explanation}``."""
    _, _, section = docstring.partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).replace("`", "") for name, text in entries}
