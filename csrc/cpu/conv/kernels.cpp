// The kernel table of one instruction set, and the changes of layout at its boundary.
#include "cpu/conv/kernels.h"

#include <type_traits>
#include <utility>

#include "cpu/conv/any_path.h"
#include "cpu/simd.h"

namespace nf::NF_ISA {

template <class T, int l1>
void fill(ConvKernels<T>&);  // fill.cpp

namespace {

template <int n>
using Count = std::integral_constant<int, n>;

// n: components known at compile time, or any number at run time
template <class T, class N>
[[gnu::always_inline]] inline void channels_last(const T* from, T* to, N n, int mul, int padded) {
  for (int m = 0; m < n; ++m) {
    for (int u = 0; u < mul; ++u) to[m * padded + u] = from[u * n + m];
    for (int u = mul; u < padded; ++u) to[m * padded + u] = 0;
  }
}

template <class T, class N>
[[gnu::always_inline]] inline void channels_first(const T* from, T* to, N n, int mul, int padded) {
  for (int u = 0; u < mul; ++u)
    for (int m = 0; m < n; ++m) to[u * n + m] = from[m * padded + u];
}

template <class T>
void any_channels_last(const T* from, T* to, int n, int mul, int padded) {
  switch (n) {
    case 1: return channels_last(from, to, Count<1>{}, mul, padded);
    case 3: return channels_last(from, to, Count<3>{}, mul, padded);
    case 5: return channels_last(from, to, Count<5>{}, mul, padded);
    case 7: return channels_last(from, to, Count<7>{}, mul, padded);
    case 9: return channels_last(from, to, Count<9>{}, mul, padded);
    default: return channels_last(from, to, n, mul, padded);
  }
}

template <class T>
void any_channels_first(const T* from, T* to, int n, int mul, int padded) {
  switch (n) {
    case 1: return channels_first(from, to, Count<1>{}, mul, padded);
    case 3: return channels_first(from, to, Count<3>{}, mul, padded);
    case 5: return channels_first(from, to, Count<5>{}, mul, padded);
    case 7: return channels_first(from, to, Count<7>{}, mul, padded);
    case 9: return channels_first(from, to, Count<9>{}, mul, padded);
    default: return channels_first(from, to, n, mul, padded);
  }
}

template <class T>
void sum_dy(const T* partial, T* dy, int components) {
  for (int c = 0; c < components; ++c) dy[c] = sum_lanes<T>(load(partial + c * kLanes<T>));
}

template <class T>
ConvKernels<T> make() {
  ConvKernels<T> kernels{};
  kernels.lanes = kLanes<T>;
  [&]<int... l1>(std::integer_sequence<int, l1...>) { (fill<T, l1>(kernels), ...); }(
      std::make_integer_sequence<int, kMaxL + 1>{});
  kernels.any = {{gather_any<T, false>, gather_any<T, true>}, {gradient_any<T, false>, gradient_any<T, true>}};
  kernels.channels_last = any_channels_last<T>;
  kernels.channels_first = any_channels_first<T>;
  kernels.sum_dy = sum_dy<T>;
  kernels.end_stream = end_stream;
  return kernels;
}

}  // namespace

template <>
const ConvKernels<float>& conv_kernels<float>() {
  static const ConvKernels<float> kernels = make<float>();
  return kernels;
}

template <>
const ConvKernels<double>& conv_kernels<double>() {
  static const ConvKernels<double> kernels = make<double>();
  return kernels;
}

}  // namespace nf::NF_ISA
