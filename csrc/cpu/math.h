// Elementary functions of vectors.
#pragma once

#include <cmath>
#include <type_traits>

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

// Taylor series of the exponential without its first term, to rounding for |r| ≤ log(2)/2: r + r²/2 + …
template <class T>
inline Vec<T> expm1_series(Vec<T> r) {
  constexpr int degree = sizeof(T) == 4 ? 8 : 14;
  double factor = 1;
  for (int k = 2; k <= degree; ++k) factor /= k;
  Vec<T> sum = broadcast<T>(T(factor));
  for (int k = degree; k > 1; --k) {
    factor *= k;
    sum = sum * r + T(factor);
  }
  return sum * r;
}

// exp(−t) = 2^n (1 + p) for t ≥ 0; t beyond the smallest normal number is cut off.
template <class T>
struct ExpMinus {
  Vec<T> scale, p;  // 2^n and expm1 of the rest
  Vec<T> kept;      // 1, or 0 where exp(−t) is below normal numbers

  explicit ExpMinus(Vec<T> t) {
    using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    typedef Integer Integers __attribute__((vector_size(kVectorBytes)));
    constexpr T limit = sizeof(T) == 4 ? T(87) : T(708);
    constexpr int mantissa = sizeof(T) == 4 ? 23 : 52, bias = sizeof(T) == 4 ? 127 : 1023;
    constexpr T round = T(1.5) * T(int64_t(1) << mantissa);  // added, it leaves the nearest integer in the low bits
    constexpr T log2_high = T(sizeof(T) == 4 ? 0.693145751953125 : 6.93147180369123816490e-01);
    constexpr T log2_low = T(sizeof(T) == 4 ? 1.42860682030941723212e-06 : 1.90821492927058770002e-10);
    const auto beyond = t > limit;
    kept = beyond ? Vec<T>{} : broadcast<T>(T(1));
    const Vec<T> x = beyond ? Vec<T>{} : -t, shifted = x * T(1.4426950408889634) + round, n = shifted - round;
    p = expm1_series<T>((x - n * log2_high) - n * log2_low);
    scale = (Vec<T>)(((Integers)shifted + Integer(bias)) << mantissa);
  }
};

template <class T>
inline Vec<T> exp_minus(Vec<T> t) {
  const ExpMinus<T> e(t);
  return e.kept * (e.scale + e.scale * e.p);
}

// exp(−t) − 1, also exact where t is small
template <class T>
inline Vec<T> expm1_minus(Vec<T> t) {
  const ExpMinus<T> e(t);
  return e.kept * (e.scale * e.p + (e.scale - T(1))) - (T(1) - e.kept);
}

// log(1 + e) for 0 ≤ e ≤ 1, to rounding: 2 artanh(e / (2 + e)), whose argument is at most 1/3
template <class T>
inline Vec<T> log1p_small(Vec<T> e) {
  constexpr int terms = sizeof(T) == 4 ? 8 : 17;
  const Vec<T> s = e / (e + T(2)), s2 = s * s;
  Vec<T> sum{};
  for (int k = terms; k >= 0; --k) sum = sum * s2 + T(1.0 / (2 * k + 1));
  return T(2) * s * sum;
}

}  // namespace nf::NF_ISA
