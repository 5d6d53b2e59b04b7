#!/usr/bin/env bash
# Build the CUDA kernels for the CPU (simt.h), under sanitizers, and run the operators' tests on them; needs cmake, ninja
# and an environment with nequip_fast in PATH. Arguments go to pytest, in place of the tests below.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build
torch=$(python -c 'from pathlib import Path; import torch; print(Path(torch.__file__).parent)')
{
  cmake -S . -B build/simt -G Ninja -DNF_SIMT=ON -DTORCH_DIR="$torch"
  cmake --build build/simt --target _C
} > build/simt.log 2>&1 || { tail -40 build/simt.log; exit 1; }

# Python was not built with AddressSanitizer, which must come first all the same, and knows exceptions by libstdc++.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0  # Python's own
export NEQUIP_FAST_EMULATED_CUDA="$PWD/build/simt/_C.so" NEQUIP_FAST_TEST_KERNELS=cuda
# Finite differences are left out, as where Triton's kernels are interpreted.
tests=(tests/ops/test_cuda.py tests/ops/test_conv.py tests/ops/test_conv_of_rows.py tests/ops/test_gate.py
  tests/ops/test_radial.py tests/ops/test_segment_sum.py tests/ops/test_spherical_harmonics.py
  tests/engine/test_hermite.py tests/engine/test_rows.py
  'tests/engine/test_on_device.py::test_equals_the_engine_in_c[parity-crystals-table]'
  'tests/engine/test_on_device.py::test_many_atoms[parity]'
  tests/engine/test_on_device.py::test_room_for_more_pairs tests/engine/test_on_device.py::test_room_for_more_edges
  -k 'not finite_differences and not float32_per_instruction')
exec python -m pytest -n 2 "${@:-${tests[@]}}"
