// The kernel table of one instruction set, and the changes of layout at its boundary.
#include "cpu/conv/kernels.h"

#include <algorithm>
#include <utility>

#include "cpu/columns.h"
#include "cpu/conv/any_path.h"

namespace nf::NF_ISA {

template <class T, int l1>
void fill(ConvKernels<T>&);  // fill.cpp

namespace {

template <class T>
void collect(const T* const* rows, int count, int dim, T* columns) {
  for (int first = 0; first < dim; first += kLanes<T>) {
    const int some = std::min(dim - first, kLanes<T>);
    Vec<T> square[kLanes<T>];
    for (int e = 0; e < kLanes<T>; ++e) square[e] = e < count ? load(rows[e] + first, some) : Vec<T>{};
    transpose<T>(square);
    for (int c = 0; c < some; ++c) store(columns + (first + c) * kLanes<T>, square[c]);
  }
}

template <class T>
void channels_last(const T* from, T* to, int n, int mul, int padded) {
  for (int u = 0; u < mul; u += kLanes<T>)
    read_columns<T>(from + u * n, n, std::min(kLanes<T>, mul - u),
                    [&](int m, Vec<T> channels) { store(to + m * padded + u, channels); });
}

template <class T>
void channels_first(const T* from, T* to, int n, int mul, int padded) {
  for (int u = 0; u < mul; u += kLanes<T>)
    write_rows<T>(to + u * n, n, std::min(kLanes<T>, mul - u), [&](int m) { return load(from + m * padded + u); });
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
  kernels.collect = collect<T>;
  kernels.channels_last = channels_last<T>;
  kernels.channels_first = channels_first<T>;
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
