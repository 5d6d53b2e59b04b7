"""nequip's own acceptance tests of models, on ours and on nequip's modified: python tests/peers/nequip_acceptance.py

nequip ships the tests as mixins (``nequip.utils.unittests``); nequip_mixins.py gives them models. They run in a process
for each kind of builder, some trainings and compilations included; results go to nequip_acceptance.md beside this file.
Takes half an hour or more and a C++ compiler; needs the package nequip. The mixin for torch-sim, which needs Python
3.12, is a run of its own with ``--torch-sim``, of a quarter of an hour; its results go to nequip_torch_sim.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.peers import nequip_mixins  # noqa: E402

BUILDERS = {"TestOurs": "nequip_fast's builders", "TestModified": "nequip's builders with enable_NequipFast"}
STATUSES = PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
# compiling takes half a minute a case
SELECTION = "not torchsim and (not test_ase_compile or l2_parity or (package and float32 and aspirin))"
TORCH_SIM = "torchsim and package and aspirin and (l2_parity or float32)"
NOTES = """\
`NequIPGNNModel`: *l1* is l_max 1 without parity; *l2_parity* three layers to l_max 2 with parity, with another number
of channels for each degree; *cutoffs_by_type* and *zbl* have cutoffs by pairs of types and the ZBL potential.
*preset_S* is `PresetNequIPGNNModel`. Each test runs in float32 and in float64, some on molecules and on crystals.

- No limit of nequip's is changed. For our builders, tests that look for a module by nequip's class are given ours in
  its place: `PartialForceOutput` wraps the whole model, without derivatives of its own; isolated atoms are compared
  with our `PerTypeScaleShift`; what is asked under permutations goes by the precision of our model, as it does for
  nequip's; and the test of the edges' embedding, which checks nothing where the results do not hold it, is shown it.
- `test_ase_compile` trains a model with nequip-train, in half of the cases makes it a package and trains that further,
  then compares it with what nequip-compile makes of it. All 8 cases run for *l2_parity*, one for each of the others
  (float32, molecules, from a package): the 28 other cases of each kind of builder are left out, for their time.
  Models of nequip's builders are trained without the modifier and compiled with it. Where nequip downloads aspirin,
  ethanol from `demo/data` is learned.
- `test_train_time_compile` is skipped on CPUs by nequip, for errors of compilers that it knows of. With the modifier it
  runs all the same, with the gradients that the case before left in the model cleared. Our builders refuse
  `compile_mode: compile`: their kernels are compiled already.
- `test_mliap_integration` needs LAMMPS and a GPU. nequip-prepare-lmp-mliap takes no model of our builders, which know
  nothing of ghost atoms; those of nequip's, read from files, take the modifier
  ([`nequip_modifier.md`](nequip_modifier.md)).
- The mixin for torch-sim has [a table of its own](nequip_torch_sim.md)."""
TORCH_SIM_NOTES = """\
The models of [`nequip_acceptance.md`](nequip_acceptance.md), trained on molecules and packaged in float32, *l2_parity*
in float64 as well, compiled by nequip-compile for batches and run in nequip's own calculator for torch-sim; nequip's
models are compiled with the modifier. nequip_fast's own model for torch-sim is tested in
`tests/integrations/test_torch_sim.py`."""


@dataclass(frozen=True)
class Case:
    """One test with its parameters, and how it ended."""

    builder: str
    model: str
    mixin: str
    name: str
    status: str
    message: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="pytest -k expression; nothing is written then")
    parser.add_argument("--torch-sim", action="store_true", help="the mixin for torch-sim alone")
    arguments = parser.parse_args()
    if arguments.torch_sim and not find_spec("torch_sim"):
        sys.exit("torch-sim is not installed; it needs Python 3.12: pip install 'nequip_fast[torch-sim]'")
    selection = arguments.only or (TORCH_SIM if arguments.torch_sim else SELECTION)
    cases = [case for builder in BUILDERS for case in run(f"{builder} and ({selection})")]
    if not arguments.only:
        page = HERE / ("nequip_torch_sim.md" if arguments.torch_sim else "nequip_acceptance.md")
        page.write_text(markdown(cases, arguments.torch_sim))
    print(", ".join(f"{count} {status}" for status, count in Counter(case.status for case in cases).items()))
    for case in cases:
        if case.status == FAILED:
            print(f"{case.builder} {case.name}: {case.message}", file=sys.stderr)
    return int(not cases or any(case.status == FAILED for case in cases))


def run(selection: str) -> list[Case]:
    """The cases that a pytest expression selects, run in a process of their own: nequip's fixtures change settings."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "nequip.utils.unittests.conftest"]
        command += ["-p", "no:cacheprovider", "-W", "ignore", "-c", os.devnull, "--rootdir", str(HERE)]
        command += ["--import-mode=importlib", f"--junitxml={report}", "-k", selection, nequip_mixins.__file__]
        paths = {  # nequip's commands are looked for beside this Python
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        subprocess.run(command, env={**os.environ, **paths}, stdout=sys.stderr)
        if not report.is_file():
            sys.exit("pytest gave no report")
        return [_case(element) for element in ElementTree.parse(report).iter("testcase")]


def _case(element: ElementTree.Element) -> Case:
    name = element.get("name", "")
    test, _, parameters = name.rstrip("]").partition("[")
    (model,) = set(parameters.split("-")) & set(nequip_mixins.MODELS)
    builder = BUILDERS[element.get("classname", "").rpartition(".")[2]]
    problem = next((e for kind in ("failure", "error", "skipped") for e in element.iter(kind)), None)
    message = "" if problem is None else (problem.get("message") or problem.text or "").split("\n")[0]
    status = PASSED if problem is None else SKIPPED if problem.tag == "skipped" else FAILED
    return Case(builder, model, nequip_mixins.mixin_of(test), name, status, message)


def markdown(cases: list[Case], torch_sim: bool) -> str:
    """The page."""
    names = ["nequip", "torch", "e3nn", "ase", *(["torch-sim-atomistic"] if torch_sim else [])]
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    counts = Counter(case.status for case in cases)
    title, option = (" for torch-sim", " --torch-sim") if torch_sim else ("", "")
    lines = [
        f"# nequip's own acceptance tests{title}, on nequip_fast",
        "",
        f"Made by `python tests/peers/nequip_acceptance.py{option}` on the CPU with {packages},",
        f"Python {platform.python_version()}: {', '.join(f'{counts[status]} {status}' for status in STATUSES)}.",
        "The tests are the mixins in `nequip.utils.unittests`.",
        "",
        TORCH_SIM_NOTES if torch_sim else NOTES,
    ]
    rows = Counter((case.builder, case.mixin, case.model, case.status) for case in cases)
    for builder in BUILDERS.values():
        lines += ["", f"## {builder}", "", "| mixin | model | passed | failed | skipped |", "|---|---|---|---|---|"]
        for mixin in dict.fromkeys(case.mixin for case in cases):
            for model in nequip_mixins.MODELS:
                numbers = " | ".join(str(rows[builder, mixin, model, status] or "") for status in STATUSES)
                lines.append(f"| {mixin} | {model} | {numbers} |")
        reasons = Counter(
            (case.name.partition("[")[0] if case.status == SKIPPED else case.name, case.status, case.message)
            for case in cases
            if case.builder == builder and case.status != PASSED
        )
        lines += ["", *(f"- `{name}` {status} ({count}): {why}" for (name, status, why), count in reasons.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
