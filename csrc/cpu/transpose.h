// The transpose of a square of vectors, in registers.
#pragma once

#include <utility>

#include "cpu/simd.h"

namespace nf::NF_ISA {

// Swaps the off-diagonal blocks of size h in every square of size 2h of rows i and i + h.
template <int h, class V, int... lane>
[[gnu::always_inline]] inline void swap_blocks(V& a, V& b, std::integer_sequence<int, lane...>) {
  constexpr int n = sizeof...(lane);
  const V low = __builtin_shufflevector(a, b, (lane & h ? n + lane - h : lane)...);
  b = __builtin_shufflevector(a, b, (lane & h ? n + lane : lane + h)...);
  a = low;
}

template <class T, int h = kLanes<T> / 2>
[[gnu::always_inline]] inline void transpose(Vec<T> (&v)[kLanes<T>]) {
  for (int i = 0; i < kLanes<T>; ++i)
    if (!(i & h)) swap_blocks<h>(v[i], v[i + h], std::make_integer_sequence<int, kLanes<T>>{});
  if constexpr (h > 1) transpose<T, h / 2>(v);
}

}  // namespace nf::NF_ISA
