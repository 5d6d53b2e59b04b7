#!/usr/bin/env bash
# Build and run check_kernels (main.cpp beside this file) three times; needs cmake and ninja in PATH, and the build of
# the library, whose objects the first run takes.
set -euo pipefail
cd "$(dirname "$0")/../../.."

check() {  # what, build folder
  echo "== kernels $1"
  cmake --build "$2" --target check_kernels > build/check.log 2>&1 || { tail -40 build/check.log; exit 1; }
  "$2/check_kernels"
}

configure() {  # sanitizers, build folder
  cmake -S . -B "$2" -G Ninja -DNF_SANITIZE="$1" > build/check.log 2>&1 || { tail -40 build/check.log; exit 1; }
}

check "as shipped, arrays at the end of their pages" build/ninja
configure address,undefined build/address
check "under AddressSanitizer and UndefinedBehaviorSanitizer" build/address
configure thread build/thread
check "under ThreadSanitizer" build/thread
