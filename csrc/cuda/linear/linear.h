// Linear maps between rows of segments on the GPU, on plain pointers into its memory.
#pragma once

#include <cstdint>
#include <vector>

#include "problems/linear.h"

namespace nf::cuda {

// out [rows, dim_out] of x [rows, dim_in]; the next counts[k] rows take the k-th row of w [counts.size(), w_stride].
// `stream` is a cudaStream_t. Returns a cudaError_t as an int.
template <class T>
int linear(const LinearProblem&, const T* x, const T* w, int64_t w_stride, const std::vector<int64_t>& counts, T* out,
           void* stream);

}  // namespace nf::cuda
