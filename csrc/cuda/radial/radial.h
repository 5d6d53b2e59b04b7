// The radial basis of edges and its derivatives on the GPU, on plain pointers into its memory.
#pragma once

#include <cstdint>

namespace nf::cuda {

// The arguments of RadialBasis (csrc/formulas/radial.h), which is made on the GPU, where the roots are.
struct RadialProblem {
  const double* roots;
  int64_t size;
  double p, factor;
};

// out [edges, size] of x [edges]. `stream` is a cudaStream_t. Each returns a cudaError_t as an int.
template <class T>
int radial(const RadialProblem&, const double* x, T* out, int64_t edges, void* stream);

// dx [edges]: the derivative of g · radial.
template <class T>
int radial_vjp(const RadialProblem&, const double* x, const T* g, double* dx, int64_t edges, void* stream);

// The derivatives of c · radial_vjp(x, g) by x and g.
template <class T>
int radial_vjp_grad(const RadialProblem&, const double* x, const T* g, const double* c, double* dx, T* dg, int64_t edges,
                    void* stream);

}  // namespace nf::cuda
