#!/usr/bin/env bash
# Build, test and measure on a machine with a GPU that has only torch, triton, e3nn, numpy, nvcc, cmake, ninja, pytest and
# hypothesis, and no network. Results go to $OUT (default: bench/results/gpu).
#
#   bash bench/on_gpu.sh               everything
#   bash bench/on_gpu.sh test bench    some of it: test, sanitize, tune, bench, engine (the build comes first)
#   bash bench/on_gpu.sh --rehearse    the same steps where there is no GPU, those that need one left out
#   PEER_WHEELS=folder bash bench/on_gpu.sh    take peers from a folder of wheels, OpenEquivariance as its source
set -euo pipefail
cd "$(dirname "$0")/.."
rehearse=
default=bench/results/gpu
if [ "${1:-}" = --rehearse ]; then
  rehearse=yes default=build/rehearsal
  shift
fi
stages=" ${*:-test sanitize tune bench engine} "
out=${OUT:-$default}
python=${PYTHON:-python3}
mkdir -p "$out"
out=$(realpath "$out")
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export TRITON_DEFAULT_FP_FUSION=1 TORCHINDUCTOR_FORCE_DISABLE_CACHES=1
export NEQUIP_FAST_CACHE="$out/cache"
failed=

if [ -d "${PEER_WHEELS:-}" ]; then
  mkdir -p "$out/peers"
  for wheel in "$PEER_WHEELS"/*.whl; do
    "$python" -m pip install --no-index --no-deps --quiet --target "$out/peers" "$wheel" || echo "left out: $wheel"
  done
  for source in "$PEER_WHEELS"/openequivariance-*.tar.gz; do
    tar xzf "$source" -C "$out/peers" --strip-components=1 || echo "left out: $source"
  done
  export PYTHONPATH="$PYTHONPATH:$out/peers"
fi

echo "== build"
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
"$python" setup.py build_ext --inplace > "$out/build.log" 2>&1 || { tail -30 "$out/build.log"; exit 1; }
"$python" -c 'import json, nequip_fast; print(json.dumps(nequip_fast.info(), indent=1))' | tee "$out/info.json"

if [[ $stages == *" test "* ]]; then
  echo "== operators on the GPU, then on the CPU"
  "$python" -m pytest tests/kernels tests/ops/test_cuda.py tests/engine/test_gpu.py tests/engine/test_hermite.py tests/engine/test_rows.py -q 2>&1 | tail -15 | tee "$out/tests.txt" || failed="$failed gpu-tests"
  "$python" -m pytest tests/ops tests/csrc -q 2>&1 | tail -15 | tee -a "$out/tests.txt" || failed="$failed cpu-tests"
fi

if [ "$rehearse" ]; then
  echo "== rehearsal: compute-sanitizer and the GPU benchmark left out"
  "$python" bench/run.py --quick --case conv-S harmonics-l2 --peers reference e3nn --json "$out/rehearsal.json"
  "$python" bench/engine_gpu.py --device cpu --cases S-64 --json "$out/engine.json"
  [ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
  exit 0
fi

if [[ $stages == *" sanitize "* ]]; then
  echo "== compute-sanitizer"
  for tool in memcheck racecheck initcheck; do
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$python" -m pytest tests/ops/test_cuda.py tests/kernels/test_gpu.py -q -k "not per_instruction" 2>&1 |
      tail -4 | tee "$out/$tool.txt" || failed="$failed $tool"
  done
  # with torch's cache: without it no step can be captured
  compute-sanitizer --tool memcheck --error-exitcode 9 "$python" -m pytest tests/engine/test_gpu.py -q 2>&1 |
    tail -4 | tee "$out/memcheck-engine.txt" || failed="$failed memcheck-engine"
fi

if [[ $stages == *" tune "* ]]; then
  echo "== block sizes"
  "$python" bench/tune.py --seconds 150 --cases conv-M conv-L conv-l3i5 conv-mace-large | tee "$out/tune.txt" ||
    failed="$failed tune"
fi

if [[ $stages == *" bench "* ]]; then
  echo "== benchmark"
  "$python" bench/run.py --device cuda --dtype float32 --budget 8 --json "$out/bench.json" --case \
    conv-M conv-L conv-l3i5 conv-mace-large conv-S conv-32-l2-parity harmonics-l3 gate-M self-connection-M-1000 product-uvu |
    tee "$out/bench.txt" || failed="$failed benchmark"
  echo "== radial weights"
  "$python" bench/radial_variants.py --measure "$out/radial-variants.json" || failed="$failed radial-variants"
fi

if [[ $stages == *" engine "* ]]; then
  echo "== engine"
  "$python" bench/engine_gpu.py --profile --json "$out/engine.json" | tee "$out/engine.txt" || failed="$failed engine"
fi

[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
