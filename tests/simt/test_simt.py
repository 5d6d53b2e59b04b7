"""What simt.h promises to those who test CUDA kernels with it (run.sh), under sanitizers itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "csrc"
COMPILER = shutil.which("g++")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled checks."""
    if COMPILER is None:
        pytest.skip("no g++")
    target = tmp_path_factory.mktemp("simt") / "check"
    command = [
        COMPILER, "-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-DNF_SIMT", f"-I{HERE}", f"-I{SOURCES}",
        "-fsanitize=address,undefined", "-fno-sanitize-recover=all", str(HERE / "check.cpp"), "-o", str(target),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=600)
    return target


def test_promises(program):
    result = subprocess.run([program], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("mistake", "message"), [("overrun", "heap-buffer-overflow"), ("shift", "shift exponent")])
def test_seeded_mistakes_are_found(program, mistake, message):
    result = subprocess.run([program, mistake], capture_output=True, text=True, timeout=600)
    assert result.returncode != 0
    assert message in result.stderr
