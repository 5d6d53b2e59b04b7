"""Builds nequip_fast/_C.so with CMake: the CPU kernels always, the CUDA kernels when nvcc is found.

Environment: FORCE_CUDA=1 (fail without nvcc), FORCE_CUDA=0 (never), TORCH_CUDA_ARCH_LIST, MAX_JOBS.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def find_nvcc() -> str | None:
    """Path of the CUDA compiler to use, or None for a CPU-only build."""
    wanted = os.environ.get("FORCE_CUDA", "")
    if wanted == "0":
        return None
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if wanted == "1" and nvcc is None:
        sys.exit("nequip_fast: FORCE_CUDA=1, but no nvcc was found; set CUDA_HOME to the CUDA toolkit")
    return nvcc


class CMakeBuild(build_ext):
    """Runs CMake; the library is no Python module, so it has one name for every Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """nequip_fast/_C.so, without the interpreter's tag."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Configure and build into the place where setuptools expects the extension."""
        import torch  # headers and libraries; imported here so that metadata can be read without it

        if shutil.which("cmake") is None:
            sys.exit("nequip_fast: no cmake; install it with pip install cmake ninja")
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = ROOT / "build" / ("ninja" if shutil.which("ninja") else "make")
        build.mkdir(parents=True, exist_ok=True)
        nvcc = find_nvcc()
        print(
            f"nequip_fast: CUDA kernels {'with ' + nvcc if nvcc else 'left out (no nvcc): CPU kernels only'}",
            flush=True,
        )
        options = [
            f"-DTORCH_DIR={Path(torch.__file__).parent}",
            f"-DOUTPUT_DIR={output}",
            f"-DNF_CUDA={'ON' if nvcc else 'OFF'}",
            *([f"-DCMAKE_CUDA_COMPILER={nvcc}"] if nvcc else []),
        ]
        ninja = shutil.which("ninja")
        if ninja:  # named afresh each time: an isolated build leaves the path of its own copy in the cache
            options += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        subprocess.run(["cmake", "-S", str(ROOT), "-B", str(build), *options], check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)


setup(ext_modules=[Extension("nequip_fast._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
