"""The CUDA kernels compile and keep to the registers that bench/results/cuda-resources.csv says they take."""

import csv
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.cuda_kernels import COLUMNS, resources

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
TABLE = ROOT / "bench" / "results" / "cuda-resources.csv"


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """The folder of the generated Clebsch-Gordan tables."""
    folder = tmp_path_factory.mktemp("generated")
    sources = [str(ROOT / "csrc" / "cg" / name) for name in ("generate.cpp", "coupling.cpp")]
    subprocess.run(["g++", "-std=c++20", f"-I{ROOT / 'csrc'}", *sources, "-o", folder / "generate"], check=True)
    subprocess.run([folder / "generate", "4", folder / "cg_tables.h"], check=True)
    return folder


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("kind", ["float", "double"])
def test_no_kernel_spills_more_than_the_table_allows(kind, tables, tmp_path):
    """On an H100, those of conv for x of l = 2 in preset M: the others are the same templates."""
    group, groups = 5, 20
    command = [
        NVCC, "-std=c++20", "--expt-relaxed-constexpr", "-gencode=arch=compute_80,code=sm_90",
        f"-I{ROOT / 'csrc'}", f"-I{tables}",
        "-DNF_ISA=cuda", f"-DNF_TYPE={kind}", f"-DNF_GROUP={group}", f"-DNF_GROUPS={groups}",
        "-c", str(ROOT / "csrc" / "cuda" / "conv" / "fill.cu"), "-o", str(tmp_path / "fill.o"),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    with TABLE.open(encoding="utf-8", newline="") as file:
        key = COLUMNS[: COLUMNS.index("registers")]
        allowed = {tuple(row[column] for column in key): int(row["spilled_bytes"]) for row in csv.DictReader(file)}
    found = resources([tmp_path / "fill.o"])
    assert {row["kernel"] for row in found} == {"conv gather", "conv gradient"}
    for row in found:
        assert row["spilled_bytes"] <= allowed[tuple(str(row[column]) for column in key)], row
