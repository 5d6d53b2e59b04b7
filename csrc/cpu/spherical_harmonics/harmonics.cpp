#include "cpu/spherical_harmonics/harmonics.h"

#include <algorithm>
#include <cmath>

namespace nf {

HarmonicProblem::HarmonicProblem(const std::vector<int64_t>& degrees, HarmonicScale scaling, bool normalize)
    : l_max(int(*std::max_element(degrees.begin(), degrees.end()))), normalize(normalize) {
  for (const int64_t l : degrees)
    for (int column = int(l * l); column < (l + 1) * (l + 1); ++column) columns.push_back(column);
  in_order = dim() == (l_max + 1) * (l_max + 1);
  for (int c = 0; c < dim(); ++c) in_order &= columns[c] == c;
  for (int l = 0; l <= l_max; ++l)
    scale[l] = scaling == HarmonicScale::norm       ? 1 / std::sqrt(2.0 * l + 1)
               : scaling == HarmonicScale::integral ? 1 / std::sqrt(16 * std::atan(1.0))
                                                    : 1;
}

}  // namespace nf
