// Real spherical harmonics in e3nn's conventions (y polar) and their first two derivatives, for each instruction set.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "problems/harmonics.h"

namespace nf {

// Rows begin … end − 1; r and directions have 3 columns, y and g problem.dim().
template <class T>
struct HarmonicKernels {
  void (*harmonics)(const HarmonicProblem&, const T* r, T* y, int64_t begin, int64_t end);
  // dr = Σ_k g_k ∂Y_k/∂r
  void (*vjp)(const HarmonicProblem&, const T* r, const T* g, T* dr, int64_t begin, int64_t end);
  // The derivatives of c · vjp(r, g): dr = Σ_k g_k ∂²Y_k/∂r² c, dg_k = c · ∂Y_k/∂r
  void (*vjp_grad)(const HarmonicProblem&, const T* r, const T* g, const T* c, T* dr, T* dg, int64_t begin,
                   int64_t end);
};

NF_KERNEL_TABLE(HarmonicKernels, harmonic_kernels)

}  // namespace nf
