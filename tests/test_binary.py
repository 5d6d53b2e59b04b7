"""The extension as it is shipped."""

import subprocess
import sys
from pathlib import Path

import nequip_fast

LIBRARY = Path(nequip_fast.__file__).with_name("_C.so")


def test_one_binary_serves_all_torches_from_2_10():
    """It uses nothing of LibTorch but the stable ABI, its CUDA kernels included where there are some."""
    audit = Path(sys.executable).with_name("torch-abi-audit")
    command = [audit, str(LIBRARY), "--check", "torch", "--verbose"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "min-torch=2.10.0" in result.stdout
