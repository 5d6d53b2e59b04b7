#include "problems/harmonics.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace nf {
namespace {

const std::vector<int64_t>& checked(const std::vector<int64_t>& degrees) {
  if (degrees.empty()) throw std::runtime_error("spherical_harmonics: at least one degree is needed");
  for (const int64_t l : degrees)
    if (l < 0 || l > kMaxHarmonicDegree)
      throw std::runtime_error("spherical_harmonics: degrees go from 0 to 11, got " + std::to_string(l));
  return degrees;
}

HarmonicScale named(const std::string& normalization) {
  if (normalization == "component") return HarmonicScale::component;
  if (normalization == "norm") return HarmonicScale::norm;
  if (normalization == "integral") return HarmonicScale::integral;
  throw std::runtime_error("spherical_harmonics: normalization must be component, norm or integral, got " +
                           normalization);
}

}  // namespace

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

HarmonicProblem::HarmonicProblem(const std::vector<int64_t>& degrees, const std::string& normalization, bool normalize)
    : HarmonicProblem(checked(degrees), named(normalization), normalize) {}

}  // namespace nf
