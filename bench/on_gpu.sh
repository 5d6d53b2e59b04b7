#!/usr/bin/env bash
# Build, test and measure on a machine with a GPU that has only torch, triton, e3nn, numpy, nvcc, cmake, ninja, pytest and
# hypothesis, and no network. Results go to $OUT (default: bench/results/gpu).
#
#   bash bench/on_gpu.sh               everything
#   bash bench/on_gpu.sh test bench    some of it: test, sanitize, bench (the build is always done first)
#   bash bench/on_gpu.sh --rehearse    the same steps where there is no GPU, those that need one left out
#   PEER_WHEELS=folder bash bench/on_gpu.sh    install wheels of peers from a folder first
set -euo pipefail
cd "$(dirname "$0")/.."
rehearse=
default=bench/results/gpu
if [ "${1:-}" = --rehearse ]; then
  rehearse=yes default=build/rehearsal
  shift
fi
stages=" ${*:-test sanitize bench} "
out=${OUT:-$default}
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export TRITON_DEFAULT_FP_FUSION=1 TORCHINDUCTOR_FORCE_DISABLE_CACHES=1
failed=

if [ -d "${PEER_WHEELS:-}" ]; then
  "$python" -m pip install --no-index --no-deps --quiet "$PEER_WHEELS"/*.whl || echo "some wheels of peers did not install"
fi

echo "== build"
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
"$python" setup.py build_ext --inplace > "$out/build.log" 2>&1 || { tail -30 "$out/build.log"; exit 1; }
"$python" -c 'import json, nequip_fast; print(json.dumps(nequip_fast.info(), indent=1))' | tee "$out/info.json"

if [[ $stages == *" test "* ]]; then
  echo "== operators on the GPU, then on the CPU"
  "$python" -m pytest tests/kernels tests/ops/test_cuda.py -q 2>&1 | tail -15 | tee "$out/tests.txt" || failed="$failed gpu-tests"
  "$python" -m pytest tests/ops tests/csrc -q 2>&1 | tail -15 | tee -a "$out/tests.txt" || failed="$failed cpu-tests"
fi

if [ "$rehearse" ]; then
  echo "== rehearsal: compute-sanitizer and the GPU benchmark left out"
  "$python" bench/run.py --quick --case conv-S harmonics-l2 --peers reference e3nn --json "$out/rehearsal.json"
  exit 0
fi

if [[ $stages == *" sanitize "* ]]; then
  echo "== compute-sanitizer"
  for tool in memcheck racecheck initcheck; do
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$python" -m pytest tests/ops/test_cuda.py tests/kernels/test_gpu.py -q -k "not per_instruction" 2>&1 |
      tail -4 | tee "$out/$tool.txt" || failed="$failed $tool"
  done
fi

if [[ $stages == *" bench "* ]]; then
  echo "== benchmark"
  "$python" bench/run.py --device cuda --dtype float32 --case conv-S conv-M conv-L conv-l3i5 conv-mace-large \
    conv-32-l2-parity harmonics-l3 gate-M --peers reference e3nn e3nn-compiled --json "$out/bench.json" | tee "$out/bench.txt"
fi

[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
