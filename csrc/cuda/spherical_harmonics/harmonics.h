// Spherical harmonics and their derivatives on the GPU, on plain pointers into its memory.
#pragma once

#include <cstdint>

#include "problems/harmonics.h"

namespace nf::cuda {

// y [rows, problem.dim()] of r [rows, 3]. `stream` is a cudaStream_t. Each returns a cudaError_t as an int.
template <class T>
int harmonics(const HarmonicProblem&, const T* r, T* y, int64_t rows, void* stream);

// dr [rows, 3] = Σ_k g_k ∂Y_k/∂r
template <class T>
int harmonics_vjp(const HarmonicProblem&, const T* r, const T* g, T* dr, int64_t rows, void* stream);

// The derivatives of c · harmonics_vjp(r, g) by r and g.
template <class T>
int harmonics_vjp_grad(const HarmonicProblem&, const T* r, const T* g, const T* c, T* dr, T* dg, int64_t rows,
                       void* stream);

}  // namespace nf::cuda
