"""``nequip-fast train`` and ``nequip-fast evaluate``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from nequip_fast.errors import InputError
from nequip_fast.files import write_text


def train(argv: Sequence[str]) -> int:
    """``nequip-fast train [CONFIG.yaml] [KEY=VALUE ...]``."""
    from nequip_fast.train.config import commented_yaml, make_parser, read_config

    if set(argv) & {"-h", "--help"}:
        make_parser().print_help()
        return 0
    files, overrides = _sort_out(argv)
    if "--print_config" in overrides:
        overrides.remove("--print_config")
        if not files and not any("data.file=" in word for word in overrides):
            overrides.append("data.file=structures.xyz")  # a configuration to start from
        print(commented_yaml(read_config(files[0] if files else None, overrides)), end="")
        return 0
    config = read_config(files[0] if files else None, overrides)
    from nequip_fast.train.run import train

    return train(config)


def evaluate(argv: Sequence[str]) -> int:
    """``nequip-fast evaluate model.safetensors data.xyz``."""
    options = _evaluate_parser().parse_args(argv)

    from nequip_fast.data import read_structures
    from nequip_fast.devices import choose_device
    from nequip_fast.errors import require
    from nequip_fast.model import load_model
    from nequip_fast.train.evaluate import evaluate_structures, plot_parity
    from nequip_fast.train.report import error_table

    device = choose_device(options.device)
    model = load_model(options.model)
    structures = read_structures(
        options.data,
        energy_key=options.energy_key,
        forces_key=options.forces_key,
        stress_key=options.stress_key,
        index=options.index,
    )
    result = evaluate_structures(model, structures, device, options.atoms_per_batch, options.data)
    title = f"{options.model} on {result.num_structures} structures ({result.num_atoms} atoms) of {options.data}"
    console = require("rich.console", "train").Console(highlight=False)
    console.print(error_table(result.errors, result.trivial, title))
    console.print("trivial: energies of the elements fitted to these structures, no forces, mean stress")
    if options.plot:
        plot_parity(result, options.plot)
        console.print(f"wrote {options.plot}")
    if options.json:
        write_text(options.json, json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n")
        console.print(f"wrote {options.json}")
    return 0


def _sort_out(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Configuration file and overrides; ``--key value`` becomes ``--key=value``."""
    files: list[str] = []
    overrides: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word.startswith("--") and "=" not in word and word != "--print_config":
            if not words:
                raise InputError(f"{word} needs a value, such as {word}=...")
            word = f"{word}={words.pop(0)}"
        if word.startswith("--config="):
            word = word.removeprefix("--config=")
        if "=" in word or word == "--print_config":
            overrides.append(word)
        else:
            files.append(word)
    if len(files) > 1:
        raise InputError(f"{files[1]!r} is neither the one configuration file ({files[0]}) nor an override like a.b=c")
    return files, overrides


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nequip-fast evaluate",
        description="MAE and RMSE of a trained model: energy per atom, forces (overall and per element) and stress, "
        "beside a trivial predictor.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", help="model.safetensors of a training run")
    parser.add_argument("data", help="structures with energies and forces: extended XYZ or anything ASE reads")
    parser.add_argument("--plot", metavar="PNG", help="draw predicted against reference values")
    parser.add_argument("--json", metavar="FILE", help="write the errors (eV/atom, eV/Å, eV/Å³)")
    parser.add_argument("--index", default=":", help="which structures, as ASE slices them: ::10, -100:")
    parser.add_argument("--energy-key", default="energy", help="name of the energy in the file")
    parser.add_argument("--forces-key", default="forces", help="name of the forces in the file")
    parser.add_argument("--stress-key", default="stress", help="name of the stress in the file")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--atoms-per-batch", type=int, default=2000, help="bounds the memory")
    return parser
