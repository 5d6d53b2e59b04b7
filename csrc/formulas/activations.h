// Activation functions with their first and second derivatives.
#pragma once

#include <limits>
#include <type_traits>

#include "formulas/lanes.h"
#include "problems/gate.h"

namespace nf::NF_ISA {

template <class T>
struct Jet {
  Vec<T> value, first, second;
};

// Where torch's softplus becomes the identity.
inline constexpr double kSoftplusThreshold = 20;

template <class T, Activation activation>
NF_INLINE Jet<T> activate(Vec<T> x) {
  using V = Vec<T>;
  const V zero{}, one = zero + T(1);
  const auto absolute = [](V v) { return v < 0 ? -v : v; };
  if constexpr (activation == Activation::identity) {
    return {x, one, zero};
  } else if constexpr (activation == Activation::abs) {
    return {absolute(x), x > 0 ? one : x < 0 ? -one : x, zero};
  } else if constexpr (activation == Activation::relu) {
    return {x < 0 ? zero : x, x > 0 ? one : zero, zero};
  } else if constexpr (activation == Activation::tanh) {
    const V e = expm1_minus<T>(absolute(x) + absolute(x)), size = -e / (e + T(2)), t = x < 0 ? -size : size;
    const V slope = one - t * t;
    return {t, slope, T(-2) * t * slope};
  } else {
    // e = exp(−|x|), never above one; s = 1/(1 + exp(−x))
    const V e = exp_minus<T>(absolute(x)), inverse = one / (e + T(1));
    const V s = x < 0 ? e * inverse : inverse, rest = x < 0 ? inverse : e * inverse, slope = s * rest;
    if constexpr (activation == Activation::sigmoid) {
      return {s, slope, slope * (rest - s)};
    } else if constexpr (activation == Activation::silu) {
      return {x * s, s * (x * rest + T(1)), slope * (x * (rest - s) + T(2))};
    } else if constexpr (activation == Activation::mish) {
      // tanh(log(1 + exp(x))) = (1 + 2/exp(x)) / (1 + 2/exp(x) + 2/exp(x)²), with e on the side where it is small
      const V gap = x < 0 ? zero + T(2) : e * e * T(2), n = x < 0 ? e * (e + T(2)) : e * T(2) + T(1), d = n + gap;
      const V t = n / d, w = s * (gap * (d + n) / (d * d));  // w = s (1 − t²)
      return {x * t, t + x * w, T(2) * w + x * (w * (rest - T(2) * t * s))};
    } else {
      const auto linear = x > T(kSoftplusThreshold);
      const V shift = zero + T(activation == Activation::ssp ? 0.6931471805599453 : 0);
      const V softplus = (x < 0 ? zero : x) + log1p_small<T>(e);
      return {(linear ? x : softplus) - shift, linear ? one : s, linear ? zero : slope};
    }
  }
}

}  // namespace nf::NF_ISA
