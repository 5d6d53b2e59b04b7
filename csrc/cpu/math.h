// Elementary functions of vectors.
#pragma once

#include <cmath>

#include "cpu/simd.h"

namespace nf::NF_ISA {

template <class T>
inline Vec<T> sqrt(Vec<T> v) {
#if defined(__AVX512F__)  // masked, since GCC 12 warns of the plain ones
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_sqrt_ps(__mmask16(-1), (__m512)v);
  else
    return (Vec<T>)_mm512_maskz_sqrt_pd(__mmask8(-1), (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_sqrt_ps((__m256)v);
  else
    return (Vec<T>)_mm256_sqrt_pd((__m256d)v);
#else
  for (int i = 0; i < kLanes<T>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

}  // namespace nf::NF_ISA
