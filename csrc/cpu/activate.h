// An activation function, named at run time, of a run of numbers.
#pragma once

#include <array>
#include <utility>

#include "cpu/simd.h"
#include "formulas/activations.h"

namespace nf::NF_ISA {

// after · f(before · x) and, up to `order`, its derivatives by x, of n numbers
template <class T>
using Activate = void (*)(const T* x, int n, T before, T after, T* value, T* first, T* second);

template <class T, Activation activation, int order>
void activate_run(const T* x, int n, T before, T after, T* value, T* first, T* second) {
  const T slope = after * before, bend = slope * before;
  for (int u = 0; u < n; u += kLanes<T>) {
    const Jet<T> f = activate<T, activation>(before * load(x + u, n - u));
    store(value + u, after * f.value, n - u);
    if constexpr (order > 0) store(first + u, slope * f.first, n - u);
    if constexpr (order > 1) store(second + u, bend * f.second, n - u);
  }
}

template <class T, int order>
constexpr auto kActivate = []<int... a>(std::integer_sequence<int, a...>) {
  return std::array<Activate<T>, kActivations>{activate_run<T, Activation(a), order>...};
}(std::make_integer_sequence<int, kActivations>{});

}  // namespace nf::NF_ISA
