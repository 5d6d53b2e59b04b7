// Dual numbers over vectors: a value and its derivative in one direction, computed together by code written once.
#pragma once

#include "cpu/simd.h"

namespace nf::NF_ISA {

template <class T>
struct Dual {
  Vec<T> value, tangent;

  friend Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.tangent + b.tangent}; }
  friend Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.tangent - b.tangent}; }
  friend Dual operator*(Dual a, Dual b) { return {a.value * b.value, a.value * b.tangent + a.tangent * b.value}; }
  friend Dual operator*(Vec<T> a, Dual b) { return {a * b.value, a * b.tangent}; }
  friend Dual operator*(T a, Dual b) { return {a * b.value, a * b.tangent}; }
  Dual& operator+=(Dual b) { return *this = *this + b; }
};

// What is asked for: the derivative where there is one, else the value.
template <class S>
inline auto wanted(const S& s) {
  if constexpr (requires { s.tangent; })
    return s.tangent;
  else
    return s;
}

}  // namespace nf::NF_ISA
