// One thread an edge: the envelope, a power and two trigonometric functions in float64, serves all roots.
#include "cuda/radial/radial.h"

#include "cuda/launch.h"
#include "formulas/radial.h"

namespace nf::cuda {
namespace {

constexpr int kThreads = 128;

unsigned blocks(int64_t edges) { return unsigned((edges + kThreads - 1) / kThreads); }

__device__ RadialBasis basis(const RadialProblem& problem) {
  return RadialBasis(problem.roots, problem.size, problem.p, problem.factor);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    radial_kernel(const RadialProblem problem, const double* __restrict__ x, T* __restrict__ out, int64_t edges) {
  const int64_t edge = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (edge < edges) basis(problem).values(x[edge], out + edge * problem.size);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    radial_vjp_kernel(const RadialProblem problem, const double* __restrict__ x, const T* __restrict__ g,
                      double* __restrict__ dx, int64_t edges) {
  const int64_t edge = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (edge < edges) dx[edge] = basis(problem).vjp(x[edge], g + edge * problem.size);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    radial_vjp_grad_kernel(const RadialProblem problem, const double* __restrict__ x, const T* __restrict__ g,
                           const double* __restrict__ c, double* __restrict__ dx, T* __restrict__ dg, int64_t edges) {
  const int64_t edge = int64_t(blockIdx.x) * kThreads + threadIdx.x, at = edge * problem.size;
  if (edge < edges) dx[edge] = basis(problem).vjp_grad(x[edge], g + at, c[edge], dg + at);
}

}  // namespace

template <class T>
int radial(const RadialProblem& problem, const double* x, T* out, int64_t edges, void* stream) {
  if (edges == 0) return cudaSuccess;
  NF_LAUNCH((radial_kernel<T>), blocks(edges), kThreads, stream, problem, x, out, edges);
  return int(cudaGetLastError());
}

template <class T>
int radial_vjp(const RadialProblem& problem, const double* x, const T* g, double* dx, int64_t edges, void* stream) {
  if (edges == 0) return cudaSuccess;
  NF_LAUNCH((radial_vjp_kernel<T>), blocks(edges), kThreads, stream, problem, x, g, dx, edges);
  return int(cudaGetLastError());
}

template <class T>
int radial_vjp_grad(const RadialProblem& problem, const double* x, const T* g, const double* c, double* dx, T* dg,
                    int64_t edges, void* stream) {
  if (edges == 0) return cudaSuccess;
  NF_LAUNCH((radial_vjp_grad_kernel<T>), blocks(edges), kThreads, stream, problem, x, g, c, dx, dg, edges);
  return int(cudaGetLastError());
}

#define NF_RADIAL(T)                                                                                     \
  template int radial<T>(const RadialProblem&, const double*, T*, int64_t, void*);                       \
  template int radial_vjp<T>(const RadialProblem&, const double*, const T*, double*, int64_t, void*);    \
  template int radial_vjp_grad<T>(const RadialProblem&, const double*, const T*, const double*, double*, T*, int64_t, \
                                  void*);
NF_RADIAL(float)
NF_RADIAL(double)
#undef NF_RADIAL

}  // namespace nf::cuda
