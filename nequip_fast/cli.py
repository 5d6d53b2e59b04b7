"""The command ``nequip-fast``: train, evaluate, compile, md, bench, info."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from nequip_fast.errors import InputError, MissingExtra, nearest

COMMANDS = {  # name -> (what it does, where its main(argv) is)
    "train": ("fit a potential to energies and forces; run again to resume", "nequip_fast.train.cli:train"),
    "evaluate": (
        "errors of a trained model on labelled structures, table and parity plot",
        "nequip_fast.train.cli:evaluate",
    ),
    "compile": ("make a trained model fast on the CPU, for md and Python", "nequip_fast.engine.cli:main"),
    "md": ("molecular dynamics with a trained model", "nequip_fast.md.cli:main"),
    "bench": ("time the operators against other packages (in a copy of the repository)", "nequip_fast.cli:bench"),
    "info": ("versions, processor features, and which backend serves each operator", "nequip_fast.cli:info"),
}

USAGE = f"""usage: nequip-fast COMMAND [arguments]

NequIP interatomic potentials: train them, test them, run molecular dynamics with them.

commands:
{chr(10).join(f"  {name:<9} {text}" for name, (text, _) in COMMANDS.items())}

  nequip-fast COMMAND --help    explains one command

typical use:
  nequip-fast train config.yaml data.file=mine.xyz output=runs/mine
  nequip-fast evaluate runs/mine/model.safetensors test.xyz --plot parity.png
  nequip-fast compile runs/mine/model.safetensors mine.nqf
  nequip-fast md mine.nqf start.xyz --temperature_K 300 --time_ps 10

exit status: 0 done, 2 wrong input (one sentence says what), 130 interrupted (Ctrl-C)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from nequip_fast import __version__

        print(__version__)
        return 0
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            raise InputError(f"{name!r} is not a command of nequip-fast{nearest(name, COMMANDS)}")
        module, _, function = COMMANDS[name][1].partition(":")
        return int(getattr(importlib.import_module(module), function)(rest))
    except (InputError, MissingExtra) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that cannot be written, a full disk; without a file's name it is no input
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"interrupted; no file is left half-written, {_AGAIN.get(name, 'run the same command again')}",
            file=sys.stderr,
        )
        return 130
    except SystemExit as stop:  # argparse: 0 after --help, 2 after an error it has printed
        return stop.code if isinstance(stop.code, int) else 2


_AGAIN = {
    "train": "run the same command again to resume from the last saved point",
    "md": "run the same command with --resume to go on from the last frame",
}


def info(argv: Sequence[str]) -> int:
    """Print :func:`nequip_fast.info`; ``--json`` for programs."""
    import argparse
    import json

    import nequip_fast

    parser = argparse.ArgumentParser(prog="nequip-fast info", description=COMMANDS["info"][0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    facts = nequip_fast.info()
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    operators = facts.pop("operators", {})
    for name, value in facts.items():
        print(f"{name:<12} {'none' if value is None else value}")
    for name, devices in operators.items():
        for device, reason in devices.items():
            print(f"{name + ' on ' + device:<29} {reason}")
    return 0


def bench(argv: Sequence[str]) -> int:
    """Hand over to ``bench/run.py`` of the repository."""
    repository = Path(__file__).resolve().parent.parent
    if not (repository / "bench" / "run.py").is_file():
        raise InputError(
            "bench: the benchmarks are not part of the installed package; clone the repository and run "
            "python bench/run.py there"
        )
    sys.path.insert(0, str(repository))
    return int(importlib.import_module("bench.run").main(list(argv)) or 0)


if __name__ == "__main__":
    sys.exit(main())
