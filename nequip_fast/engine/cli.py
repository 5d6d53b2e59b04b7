"""``nequip-fast compile``: a trained model to a file for the inference engine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from nequip_fast.engine.compile import RADIAL, compile
from nequip_fast.engine.report import summary

_EXAMPLES = """examples:
  nequip-fast compile runs/mine/model.safetensors mine.nqf
  nequip-fast compile last.ckpt mine.nqf --verify validation.xyz
  nequip-fast compile checkpoint_sevennet_0.pth sevennet-0.nqf
  nequip-fast compile checkpoint_sevennet_mf_0.pth sevennet-mf-0.nqf --modal PBE
"""


def main(argv: Sequence[str]) -> int:
    """Compile, print what was found, write."""
    parser = argparse.ArgumentParser(
        prog="nequip-fast compile",
        description="Compile a trained model for fast energies, forces and stress.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        help="model.safetensors, a checkpoint (nequip's *.ckpt, SevenNet's and old nequip's *.pth), or *.nequip.zip",
    )
    parser.add_argument("output", help="file to write, *.nqf")
    parser.add_argument("--modal", metavar="NAME", help="modality of a multi-modal model of SevenNet, such as PBE")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="of the network (default: the model's own)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="X",
        help="accepted deviation of a force, eV/Å, or of the largest force where that is above 1 (default: 1e-5)",
    )
    parser.add_argument(
        "--radial", choices=RADIAL, default="table", help="tables of the radial networks, or these themselves"
    )
    parser.add_argument("--verify", metavar="FILE", help="structures to compare on (default: random boxes)")
    parser.add_argument("--plot", metavar="FILE", help="figure of the radial functions and the error of their tables")
    parser.add_argument("--trust", action="store_true", help="read a checkpoint that holds pickled objects")
    options = parser.parse_args(argv)
    verify: bool | list = True
    if options.verify is not None:
        from nequip_fast.data import read_structures

        verify = read_structures(options.verify, require_labels=False)
    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    potential = compile(
        options.model,
        trust=options.trust,
        modal=options.modal,
        dtype=dtype,
        radial=options.radial,
        tolerance=options.tolerance,
        verify=verify,
    )
    potential.save(options.output)
    print(f"{options.output}: {potential!r}")
    print(summary(potential.report))
    if options.plot is not None:
        potential.plot_radial(options.plot)
        print(f"{options.plot}: radial functions")
    return 0
