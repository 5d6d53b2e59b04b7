// The gate and its derivatives on the GPU, on plain pointers into its memory.
#pragma once

#include <cstdint>

#include "problems/gate.h"

namespace nf::cuda {

// out [rows, dim_out] of x [rows, dim_in]. `stream` is a cudaStream_t. Each returns a cudaError_t as an int.
template <class T>
int gate(const GateProblem&, const T* x, T* out, int64_t rows, void* stream);

// dx [rows, dim_in]: the derivative of g · gate.
template <class T>
int gate_vjp(const GateProblem&, const T* x, const T* g, T* dx, int64_t rows, void* stream);

// The derivatives of c · gate_vjp(x, g) by x and g.
template <class T>
int gate_vjp_grad(const GateProblem&, const T* x, const T* g, const T* c, T* dx, T* dg, int64_t rows, void* stream);

}  // namespace nf::cuda
