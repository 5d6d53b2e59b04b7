// Loops whose index is a constant in each round.
#pragma once

#include <utility>

#include "cpu/simd.h"

namespace nf::NF_ISA {

template <int i>
struct Index {
  static constexpr int value = i;
  constexpr operator int() const { return i; }
};

template <int n, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (f(Index<i>{}), ...); }(std::make_integer_sequence<int, n>{});
}

}  // namespace nf::NF_ISA
