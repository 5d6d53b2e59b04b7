#include "cuda/segment_sum/segment_sum.h"

#include "cuda/launch.h"

namespace nf::cuda {
namespace {

constexpr int kThreads = 256;

// Consecutive threads take consecutive columns, so that every read of a row is coalesced.
template <class T>
__global__ void segment_sum_kernel(const T* __restrict__ m, const int64_t* __restrict__ ptr,
                                   const int64_t* __restrict__ order, T* __restrict__ out, int64_t nodes,
                                   int64_t dim) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < nodes * dim; at += step) {
    const int64_t node = at / dim, column = at - node * dim;
    T sum = 0;
    for (int64_t k = ptr[node]; k < ptr[node + 1]; ++k) sum += m[order[k] * dim + column];
    out[at] = sum;
  }
}

}  // namespace

template <class T>
int segment_sum(const T* m, const int64_t* ptr, const int64_t* order, T* out, int64_t nodes, int64_t dim,
                void* stream) {
  if (nodes * dim == 0) return cudaSuccess;
  const int64_t wanted = (nodes * dim + kThreads - 1) / kThreads;
  const int blocks = int(wanted < 65535 ? wanted : 65535);
  NF_LAUNCH((segment_sum_kernel<T>), blocks, kThreads, stream, m, ptr, order, out, nodes, dim);
  return int(cudaGetLastError());
}

template int segment_sum<float>(const float*, const int64_t*, const int64_t*, float*, int64_t, int64_t, void*);
template int segment_sum<double>(const double*, const int64_t*, const int64_t*, double*, int64_t, int64_t, void*);

}  // namespace nf::cuda
