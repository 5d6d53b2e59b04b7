"""e3nn's own tests of o3 and nn, run on nequip_fast: python tests/peers/run_e3nn.py

The tests come from e3nn's source distribution (fetched with pip, or ``--source``), are copied to a temporary folder
with their imports replaced, and run there; results go to e3nn.md and e3nn.json beside this file. Nothing of e3nn's is
kept. e3nn's example networks (e3nn.nn.models) are copied and made to use our modules as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VERSION = "0.6.0"
PASSED, PASSED_EAGER, FAILED = "passed", "passed, no TorchScript", "failed"
NOT_APPLICABLE, SKIPPED = "not applicable", "skipped by e3nn"
STATUSES = (PASSED, PASSED_EAGER, FAILED, NOT_APPLICABLE, SKIPPED)

# test -> why it cannot apply; one that passes all the same is reported as failed, so that the list stays short
REASONS = {
    "tests/o3/tensor_product_test.py::test_save": "saves and loads the TorchScript form of the module",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help=f"unpacked source distribution of e3nn {VERSION}")
    parser.add_argument("--only", default="", help="pytest -k expression; nothing is written then")
    parser.add_argument("--workers", default="1", help="processes (pytest-xdist)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source or fetch(Path(folder))
        if not (source / "tests" / "o3").is_dir():
            sys.exit(f"{source} holds no tests/o3; give the folder of an unpacked source distribution of e3nn")
        cases = run(copy_tests(source, Path(folder) / "ours", with_our_imports), arguments.only, arguments.workers)
        if failed := {case["test"] for case in cases if case["status"] == FAILED}:
            # a test that fails with e3nn's own modules as well says nothing about ours
            theirs = run(copy_tests(source, Path(folder) / "theirs", str), "", "1", sorted(failed))
            also = {(case["test"], case["case"]) for case in theirs if case["status"] == FAILED}
            for case in cases:
                if (case["test"], case["case"]) in also:
                    case["status"] = NOT_APPLICABLE
                    case["message"] = f"fails with e3nn's own modules too: {case['message']}"
    table = summarise(cases)
    counts = Counter(status for case in cases for status in [case["status"]])
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if not arguments.only:
        (HERE / "e3nn.json").write_text(json.dumps(table, indent=1) + "\n")
        (HERE / "e3nn.md").write_text(markdown(table, counts))
    for case in cases:
        if case["status"] == FAILED:
            print(f"{case['test']}: {case['message']}", file=sys.stderr)
    return 1 if counts[FAILED] or not cases else 0


def fetch(folder: Path) -> Path:
    """Download and unpack e3nn's source distribution."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "e3nn"]
    command += ["--no-build-isolation", "--dest", str(folder), f"e3nn=={VERSION}"]
    result = subprocess.run(command, capture_output=True, text=True)
    archive = next(folder.glob("e3nn-*.tar.gz"), None)
    if result.returncode or archive is None:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        sys.exit(f"e3nn {VERSION} could not be downloaded ({reason}); give an unpacked copy with --source")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / f"e3nn-{VERSION}"


def copy_tests(source: Path, copy: Path, change: Callable[[str], str]) -> Path:
    """Copy tests/o3, tests/nn and e3nn's example networks to the folder ``copy``, each file changed by ``change``."""
    for name in ("o3", "nn"):
        shutil.copytree(source / "tests" / name, copy / "tests" / name)
    shutil.copy(source / "tests" / "conftest.py", copy / "tests")
    shutil.copytree(source / "e3nn" / "nn" / "models", copy / "example_networks")
    for file in copy.rglob("*.py"):
        file.write_text(change(file.read_text()))
    return copy


def with_our_imports(text: str) -> str:
    """The source ``text`` with e3nn's o3 and nn replaced by ours; private parts and helpers remain e3nn's."""
    text = re.sub(r"\be3nn\.nn\.models\b", "example_networks", text)
    text = re.sub(r"^(\s*)from e3nn import ((?:o3|nn)\b.*)$", r"\1from nequip_fast import \2", text, flags=re.M)
    text = re.sub(r"\be3nn\.(o3|nn)\b(?!\._|\.irrep)", r"nequip_fast.\1", text)
    return re.sub(r"^import e3nn$", "import e3nn\nimport nequip_fast.nn\nimport nequip_fast.o3", text, flags=re.M)


def run(copy: Path, only: str, workers: str, tests: Sequence[str] = ("tests",)) -> list[dict[str, str]]:
    """One record for each case that ran: test, case, status, message."""
    report = copy / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "e3nn_plugin", "-p", "no:cacheprovider", "-W", "ignore"]
    command += [f"--junitxml={report}", "--rootdir", str(copy), "-k", only, "-n", workers, *tests]
    # one seed of hashes: some parameters come from sets, and all workers must draw the same
    path = os.pathsep.join([str(HERE), str(copy), str(ROOT)])
    subprocess.run(command, cwd=copy, env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"})
    if not report.is_file():
        sys.exit("pytest gave no report")
    return [record(case) for case in ElementTree.parse(report).iter("testcase")]


def record(case: ElementTree.Element) -> dict[str, str]:
    name = case.get("name", "")
    test = f"{case.get('classname', '').replace('.', '/')}.py::{name.partition('[')[0]}"
    problem = next((e for kind in ("failure", "error", "skipped") for e in case.iter(kind)), None)
    message = "" if problem is None else (problem.get("message") or problem.text or "").split("\n")[0]
    eager = any(entry.get("name") == "without_torchscript" for entry in case.iter("property"))
    if problem is None:
        status = PASSED_EAGER if eager else PASSED
    elif problem.tag == "skipped":
        status = SKIPPED
    else:
        status = FAILED
    if test in REASONS:
        status, message = (NOT_APPLICABLE, REASONS[test]) if status == FAILED else (FAILED, "listed as not applicable")
    return {"test": test, "case": name, "status": status, "message": message}


def summarise(cases: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """By test: how many of its parametrised cases ended how, and why some did not apply."""
    table: dict[str, dict[str, Any]] = defaultdict(lambda: {"counts": Counter(), "reasons": []})
    for case in cases:
        row = table[case["test"]]
        row["counts"][case["status"]] += 1
        if case["message"] and case["message"] not in row["reasons"]:
            row["reasons"].append(case["message"])
    return dict(table)


def markdown(table: dict[str, dict[str, Any]], counts: Counter[str]) -> str:
    lines = [
        f"# e3nn {VERSION}'s own tests of o3 and nn, run on nequip_fast",
        "",
        "Made by `python tests/peers/run_e3nn.py`: " + ", ".join(f"{n} {status}" for status, n in counts.items()) + ".",
        "Cases are counted, each in float32 and in float64. *No TorchScript*: the test passed with our module itself",
        "where it would have compiled it to TorchScript, which our modules do not support.",
        "",
    ]
    by_file: dict[str, list[str]] = defaultdict(list)
    for test in table:
        by_file[test.partition("::")[0]].append(test)
    for file in sorted(by_file):
        lines += [f"## {file}", "", f"| test | {' | '.join(STATUSES)} | why |", "|---|" + "---|" * 6]
        for test in by_file[file]:
            row = table[test]
            cells = " | ".join(str(row["counts"][column] or "") for column in STATUSES)
            lines.append(f"| {test.partition('::')[2]} | {cells} | {'; '.join(row['reasons'])} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
