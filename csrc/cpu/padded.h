// How long rows of whole vectors are, for code that learns at run time how wide a vector is.
#pragma once

namespace nf {

// n rounded up to whole vectors
template <class Int>
constexpr Int padded(Int n, int lanes) {
  return (n + lanes - 1) / lanes * lanes;
}

}  // namespace nf
