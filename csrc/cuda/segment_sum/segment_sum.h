// Sum of edge rows over receivers on the GPU: one thread a (node, column), no atomics, edge order kept.
#pragma once

#include <cstdint>

namespace nf::cuda {

// out [nodes, dim] = sums of m [edges, dim] over order[ptr[i]] … order[ptr[i + 1] - 1]; `stream` is a cudaStream_t.
// Returns a cudaError_t as an int.
template <class T>
int segment_sum(const T* m, const int64_t* ptr, const int64_t* order, T* out, int64_t nodes, int64_t dim, void* stream);

}  // namespace nf::cuda
