// The transpose of a square of vectors, and the sums of their lanes, in registers.
#pragma once

#include <algorithm>
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

// Lane i of the result is the sum of the lanes of v[i].
template <class T, int h = kLanes<T> / 2>
[[gnu::always_inline]] inline Vec<T> sums_of_lanes(Vec<T> (&v)[kLanes<T>]) {
  for (int i = 0; i < h; ++i) {
    swap_blocks<h>(v[i], v[i + h], std::make_integer_sequence<int, kLanes<T>>{});
    v[i] += v[i + h];
  }
  if constexpr (h > 1)
    return sums_of_lanes<T, h / 2>(v);
  else
    return v[0];
}

// put(i, n, sums) for vectors i … i + n − 1 of `count`, n at most the number of lanes; those are the first n lanes.
template <class T, class Put>
[[gnu::always_inline]] inline void each_sums_of_lanes(const T* vectors, int count, const Put& put) {
  constexpr int lanes = kLanes<T>;
  for (int i = 0; i < count; i += lanes, vectors += lanes * lanes) {
    const int n = std::min(lanes, count - i);
    Vec<T> v[lanes];
    for (int k = 0; k < lanes; ++k) v[k] = k < n ? load(vectors + k * lanes) : Vec<T>{};
    put(i, n, sums_of_lanes<T>(v));
  }
}

}  // namespace nf::NF_ISA
