// Dual numbers over lanes: a value and its derivative in one direction, computed together by code written once.
#pragma once

#include <type_traits>

#include "formulas/lanes.h"

namespace nf::NF_ISA {

template <class T>
struct Dual {
  Vec<T> value, tangent;

  NF_INLINE friend Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.tangent + b.tangent}; }
  NF_INLINE friend Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.tangent - b.tangent}; }
  NF_INLINE friend Dual operator*(Dual a, Dual b) { return {a.value * b.value, a.value * b.tangent + a.tangent * b.value}; }
  NF_INLINE friend Dual operator*(Vec<T> a, Dual b) { return {a * b.value, a * b.tangent}; }
  NF_INLINE friend Dual operator*(T a, Dual b)
    requires(!std::is_same_v<T, Vec<T>>)
  {
    return {a * b.value, a * b.tangent};
  }
  NF_INLINE Dual& operator+=(Dual b) { return *this = *this + b; }
};

// What is asked for: the derivative where there is one, else the value.
template <class S>
NF_INLINE auto wanted(const S& s) {
  if constexpr (requires { s.tangent; })
    return s.tangent;
  else
    return s;
}

}  // namespace nf::NF_ISA
