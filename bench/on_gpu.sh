#!/usr/bin/env bash
# Build, test and measure on a machine with a GPU that has only torch, e3nn, numpy, nvcc, cmake, ninja, pytest and
# hypothesis, and no network. Results go to $OUT (default: bench/results/gpu).
#
#   bash bench/on_gpu.sh               everything
#   bash bench/on_gpu.sh --rehearse    the same steps where there is no GPU, those that need one left out
#   PEER_WHEELS=folder bash bench/on_gpu.sh    install wheels of peers from a folder first
set -euo pipefail
cd "$(dirname "$0")/.."
rehearse=${1:-}
default=bench/results/gpu
[ "$rehearse" = --rehearse ] && default=build/rehearsal
out=${OUT:-$default}
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

if [ -d "${PEER_WHEELS:-}" ]; then
  "$python" -m pip install --no-index --no-deps --quiet "$PEER_WHEELS"/*.whl || echo "some wheels of peers did not install"
fi

echo "== build"
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
"$python" setup.py build_ext --inplace > "$out/build.log" 2>&1 || { tail -30 "$out/build.log"; exit 1; }
"$python" -c 'import json, nequip_fast; print(json.dumps(nequip_fast.info(), indent=1))' | tee "$out/info.json"

echo "== operators on the CPU and the GPU"
"$python" -m pytest tests/ops tests/csrc -q 2>&1 | tail -15 | tee "$out/tests.txt"

if [ "$rehearse" = --rehearse ]; then
  echo "== rehearsal: compute-sanitizer and the GPU benchmark left out"
  "$python" bench/run.py --quick --case conv-S harmonics-l2 --peers reference e3nn --json "$out/rehearsal.json"
  exit 0
fi

echo "== compute-sanitizer"
for tool in memcheck racecheck initcheck; do
  compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -m pytest tests/ops/test_cuda.py -q 2>&1 | tail -4 | tee "$out/$tool.txt"
done

echo "== benchmark"
"$python" bench/run.py --device cuda --dtype float32 --case conv-S conv-M conv-L conv-32-l2-parity harmonics-l3 \
  --peers reference e3nn e3nn-compiled --json "$out/bench.json" | tee "$out/bench.txt"
