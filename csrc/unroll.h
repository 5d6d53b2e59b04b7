// Loops whose index is a constant in each round; on the CPU in the namespace of every instruction set.
#pragma once

#include <utility>

#if defined(__CUDACC__)
#define NF_INLINE __device__ __forceinline__
#else
#define NF_INLINE [[gnu::always_inline]] inline
#endif

namespace nf::NF_ISA {

template <int i>
struct Index {
  static constexpr int value = i;
  constexpr operator int() const { return i; }
};

template <int n, class F>
NF_INLINE void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (f(Index<i>{}), ...); }(std::make_integer_sequence<int, n>{});
}

}  // namespace nf::NF_ISA
