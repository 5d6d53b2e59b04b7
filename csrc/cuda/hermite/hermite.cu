// One thread an edge, in float64, cast once. Rows pass through shared memory, so that a block writes them as one run.
#include "cuda/hermite/hermite.h"

#include "cuda/launch.h"
#include "formulas/hermite.h"

namespace nf::cuda {
namespace {

constexpr int kThreads = 128, kRows = 6;

// The last knot but one that is not beyond x, or the first.
NF_INLINE int64_t interval_of(double x, const double* knots, int64_t count) {
  int64_t below = 0, beyond = count - 1;
  while (beyond - below > 1) {
    const int64_t middle = (below + beyond) / 2;
    (knots[middle] <= x ? below : beyond) = middle;
  }
  return below;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    hermite_kernel(const double* __restrict__ x, const double* __restrict__ knots, int64_t count,
                   int64_t* __restrict__ first, T* __restrict__ values, T* __restrict__ slopes, int64_t edges) {
  NF_SHARED(T, value, kThreads * kRows);
  NF_SHARED(T, slope, kThreads * kRows);
  const int64_t begin = int64_t(blockIdx.x) * kThreads, edge = begin + threadIdx.x;
  if (edge < edges) {
    const int64_t below = interval_of(x[edge], knots, count);
    const double low = knots[below], width = knots[below + 1] - low;
    const HermiteBasis<double> at((x[edge] - low) / width, width, 1 / width);
    first[edge] = kRows * below;
    T *const to_value = value + threadIdx.x * kRows, *const to_slope = slope + threadIdx.x * kRows;
    to_value[0] = 1, to_slope[0] = 0;
    unroll<kRows - 1>([&](auto k) { to_value[k + 1] = T(at.factor[k]), to_slope[k + 1] = T(at.factor[kRows - 1 + k]); });
  }
  __syncthreads();
  const int numbers = kRows * int(edges - begin < kThreads ? edges - begin : kThreads);
  for (int i = threadIdx.x; i < numbers; i += kThreads) {
    values[begin * kRows + i] = value[i];
    slopes[begin * kRows + i] = slope[i];
  }
}

}  // namespace

template <class T>
int hermite(const double* x, const double* knots, int64_t count, int64_t* first, T* values, T* slopes, int64_t edges,
            void* stream) {
  if (edges == 0) return cudaSuccess;
  NF_LAUNCH((hermite_kernel<T>), unsigned((edges + kThreads - 1) / kThreads), kThreads, stream, x, knots, count, first,
            values, slopes, edges);
  return int(cudaGetLastError());
}

template int hermite<float>(const double*, const double*, int64_t, int64_t*, float*, float*, int64_t, void*);
template int hermite<double>(const double*, const double*, int64_t, int64_t*, double*, double*, int64_t, void*);

}  // namespace nf::cuda
