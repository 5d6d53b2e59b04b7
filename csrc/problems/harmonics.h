// Which spherical harmonics are wanted, in which normalisation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formulas/harmonic_tables.h"

namespace nf {

enum class HarmonicScale { component, norm, integral };  // |Y_l|² = 2l + 1; |Y_l| = 1; ∫ Y_lm² = 1

struct HarmonicProblem {
  int l_max;
  bool normalize;                            // of the direction alone, not of the vector
  std::vector<int> columns;                  // column of the output -> l² + l + m
  bool in_order;                             // the columns are 0, 1, 2 …
  double scale[kMaxHarmonicDegree + 1];      // of each degree, over component normalisation

  HarmonicProblem(const std::vector<int64_t>& degrees, HarmonicScale scale, bool normalize);
  // As the operators are told; throws std::runtime_error where a degree or the normalisation is unknown.
  HarmonicProblem(const std::vector<int64_t>& degrees, const std::string& normalization, bool normalize);
  int dim() const { return int(columns.size()); }
};

}  // namespace nf
