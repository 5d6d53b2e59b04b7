// Solid harmonics r^l Y_lm (e3nn's conventions, y polar, component normalisation) and their gradient tensor D:
// d/dr_a Y_k = sum_j D[a, k, j] Y_j. Formulas: nequip_fast/ops/spherical_harmonics.py.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/isa.h"

namespace nf {

inline constexpr int kMaxHarmonicDegree = 11;

struct GradientTerm {
  int a, k, j;
  double value;
};

// Constants of the recurrences up to kMaxHarmonicDegree, computed once.
struct HarmonicTables {
  static constexpr int kSize = kMaxHarmonicDegree + 1;
  // P_l^m = up[l][m] · (z P_{l-1}^m − down[l][m] · r² P_{l-2}^m), P_m^m = diagonal[m] · P_{m-1}^{m-1}
  double up[kSize][kSize], down[kSize][kSize], diagonal[kSize];
  std::vector<GradientTerm> gradient[kSize];  // all terms of degrees ≤ l

  static const HarmonicTables& get();

 private:
  HarmonicTables();
};

// Kernels over rows begin … end − 1; dim = (l_max + 1)².
template <class T>
struct HarmonicKernels {
  void (*harmonics)(const HarmonicTables&, int l_max, const T* r, T* y, int64_t begin, int64_t end);
  // out[., 3] = Σ D[a,k,j] g_k y_j
  void (*vjp)(const std::vector<GradientTerm>&, int dim, const T* y, const T* g, T* out, int64_t begin, int64_t end);
  // out[., dim] at k = Σ D[a,k,j] c_a y_j
  void (*jvp)(const std::vector<GradientTerm>&, int dim, const T* y, const T* c, T* out, int64_t begin, int64_t end);
  // out[., dim] at j = Σ D[a,k,j] g_k c_a
  void (*pull)(const std::vector<GradientTerm>&, int dim, const T* g, const T* c, T* out, int64_t begin, int64_t end);
};

NF_KERNEL_TABLE(HarmonicKernels, harmonic_kernels)

}  // namespace nf
