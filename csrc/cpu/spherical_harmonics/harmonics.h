// Real spherical harmonics in e3nn's conventions (y polar) and their first two derivatives.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/isa.h"
#include "cpu/spherical_harmonics/tables.h"

namespace nf {

enum class HarmonicScale { component, norm, integral };  // |Y_l|² = 2l + 1; |Y_l| = 1; ∫ Y_lm² = 1

struct HarmonicProblem {
  int l_max;
  bool normalize;                            // of the direction alone, not of the vector
  std::vector<int> columns;                  // column of the output -> l² + l + m
  bool in_order;                             // the columns are 0, 1, 2 …
  double scale[kMaxHarmonicDegree + 1];      // of each degree, over component normalisation

  HarmonicProblem(const std::vector<int64_t>& degrees, HarmonicScale scale, bool normalize);
  int dim() const { return int(columns.size()); }
};

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
