// Quintic Hermite interpolation in an interval.
#pragma once

#include "formulas/lanes.h"

namespace nf::NF_ISA {

// At t = 0 … 1 of an interval of this width and density 1/width: what multiplies slope and curvature at the lower knot,
// the difference of the values at both, slope and curvature at the upper one; first for the value, to be added to that at
// the lower knot, then for its derivative.
template <class T>
struct HermiteBasis {
  Vec<T> factor[10];

  NF_INLINE HermiteBasis(Vec<T> t, Vec<T> width, Vec<T> density) {
    const Vec<T> s = 1 - t, tt = t * t, ss = s * s, half = T(0.5) * width;
    factor[0] = width * t * ss * s * (1 + 3 * t);
    factor[1] = width * half * tt * ss * s;
    factor[2] = tt * t * (10 - 15 * t + 6 * tt);
    factor[3] = -width * s * tt * t * (1 + 3 * s);
    factor[4] = width * half * ss * tt * t;
    factor[5] = ss * (1 - 3 * t) * (1 + 5 * t);
    factor[6] = half * t * ss * (2 - 5 * t);
    factor[7] = 30 * tt * ss * density;
    factor[8] = tt * (1 - 3 * s) * (1 + 5 * s);
    factor[9] = -half * s * tt * (2 - 5 * s);
  }
};

}  // namespace nf::NF_ISA
