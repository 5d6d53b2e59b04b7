// How a kernel is launched: by nvcc's syntax, or on the CPU by tests/simt.
#pragma once

#if defined(NF_SIMT)
#include "simt.h"
#else
#include <cuda_runtime.h>
// KERNEL in parentheses where it has template arguments; STREAM is a cudaStream_t as void*.
#define NF_LAUNCH(KERNEL, BLOCKS, THREADS, STREAM, ...) \
  KERNEL<<<BLOCKS, THREADS, 0, static_cast<cudaStream_t>(STREAM)>>>(__VA_ARGS__)
#define NF_SHARED(T, NAME, COUNT) __shared__ T NAME[COUNT]  // of a block
#endif

#include <cstdint>

namespace nf::cuda {

// Zeros in `count` elements on the device; returns a cudaError_t as an int.
template <class T>
int zero(T* memory, int64_t count, void* stream) {
  return count ? int(cudaMemsetAsync(memory, 0, sizeof(T) * size_t(count), static_cast<cudaStream_t>(stream))) : 0;
}

}  // namespace nf::cuda
