// The kernel table of one instruction set, and the changes of layout at its boundary.
#include "cpu/tensor_product/kernels.h"

#include <algorithm>

#include "cpu/tensor_product/multiply.h"
#include "cpu/transpose.h"
#include "unroll.h"

namespace nf::NF_ISA {

template <class T>
void fill(ProductKernels<T>&);  // fill.cpp

namespace {

template <class T>
void read(const T* const* rows, int64_t column, int count, int vectors, T* columns) {
  const int64_t stride = int64_t(vectors) * kLanes<T>;
  for (int v = 0; v < vectors; ++v, rows += kLanes<T>, columns += kLanes<T>)
    for (int first = 0; first < count; first += kLanes<T>) {
      const int some = std::min(count - first, kLanes<T>);
      Vec<T> square[kLanes<T>];
      for (int i = 0; i < kLanes<T>; ++i) square[i] = load(rows[i] + column + first, some);
      transpose<T>(square);
      for (int i = 0; i < some; ++i) store(columns + (first + i) * stride, square[i]);
    }
}

template <class T>
void write(const T* columns, int64_t column, int count, int vectors, T* const* rows, int valid) {
  const int64_t stride = int64_t(vectors) * kLanes<T>;
  for (int row = 0; row < valid; row += kLanes<T>, columns += kLanes<T>)
    for (int first = 0; first < count; first += kLanes<T>) {
      const int some = std::min(count - first, kLanes<T>);
      Vec<T> square[kLanes<T>];
      for (int i = 0; i < kLanes<T>; ++i) square[i] = i < some ? load(columns + (first + i) * stride) : Vec<T>{};
      transpose<T>(square);
      for (int i = 0; i < std::min(valid - row, kLanes<T>); ++i) store(rows[row + i] + column + first, square[i], some);
    }
}

template <class T>
void to_rows(const T* columns, int64_t step, int count, int vectors, T* rows) {
  const int64_t width = padded<T>(count);
  for (int v = 0; v < vectors; ++v, columns += kLanes<T>, rows += kLanes<T> * width)
    for (int first = 0; first < count; first += kLanes<T>) {
      Vec<T> square[kLanes<T>];
      for (int i = 0; i < kLanes<T>; ++i)
        square[i] = first + i < count ? load(columns + (first + i) * step) : Vec<T>{};
      transpose<T>(square);
      for (int i = 0; i < kLanes<T>; ++i) store(rows + i * width + first, square[i]);
    }
}

template <class T>
void sum_samples(const T* columns, int64_t count, int vectors, T* sums) {
  for (int64_t c = 0; c < count; ++c) {
    Vec<T> sum{};
    for (int v = 0; v < vectors; ++v, columns += kLanes<T>) sum += load(columns);
    sums[c] += sum_lanes<T>(sum);
  }
}

template <class T, bool to_x, bool to_y>
void scalar_channel_of(const ScalarChannel<T>& c) {
  const int64_t width = int64_t(c.vectors) * kLanes<T>;
  for (int64_t s = 0; s < width; s += kLanes<T>) {
    Vec<T> x{}, sums[4]{};  // the sum in parts that do not wait for each other
    if constexpr (to_y) x = load(c.x + s) * c.coefficient;
    for (int i = 0; i < c.count; ++i) {
      const Vec<T> h = load(c.h + i * width + s);
      if constexpr (to_x) sums[i % 4] += load(c.y + i * width + s) * h;
      if constexpr (to_y) store(c.to_y + i * width + s, load(c.to_y + i * width + s) + x * h);
    }
    if constexpr (to_x)
      store(c.to_x + s, load(c.to_x + s) + ((sums[0] + sums[1]) + (sums[2] + sums[3])) * c.coefficient);
  }
}

template <class T>
void scalar_channel(const ScalarChannel<T>& c) {
  if (c.to_x)
    c.to_y ? scalar_channel_of<T, true, true>(c) : scalar_channel_of<T, true, false>(c);
  else if (c.to_y)
    scalar_channel_of<T, false, true>(c);
}

template <class T>
void sum_components(const ComponentProduct<T>& p) {
  const int64_t width = int64_t(p.vectors) * kLanes<T>;
  const T* g = p.g;
  for (int k = 0; k < p.count; ++k, g += p.components * width)
    for (int64_t s = 0; s < width; s += kLanes<T>) {
      Vec<T> sum = load(p.x + s) * load(g + s);
      for (int m = 1; m < p.components; ++m) sum += load(p.x + m * width + s) * load(g + m * width + s);
      store(p.to + k * p.step + s, sum * p.coefficient);
    }
}

template <class T, int vectors>
void sum_channels_of(const ComponentProduct<T>& p) {
  constexpr int64_t width = vectors * kLanes<T>;
  for (int m = 0; m < p.components; ++m) {
    Vec<T> sums[vectors]{};
    for (int k = 0; k < p.count; ++k)
      unroll<vectors>([&](auto v) {
        const int64_t s = v * kLanes<T>;
        sums[v] += load(p.x + k * width + s) * load(p.g + (int64_t(k) * p.components + m) * width + s);
      });
    T* const to = p.to + m * p.step;
    unroll<vectors>([&](auto v) {
      store(to + v * kLanes<T>, load(to + v * kLanes<T>) + sums[v] * p.coefficient);
    });
  }
}

template <class T>
void sum_channels(const ComponentProduct<T>& p) {
  switch (p.vectors) {
    case 1: return sum_channels_of<T, 1>(p);
    case 2: return sum_channels_of<T, 2>(p);
    case 4: return sum_channels_of<T, 4>(p);
  }
}

template <class T>
ProductKernels<T> make() {
  ProductKernels<T> kernels{};
  kernels.lanes = kLanes<T>;
  fill<T>(kernels);
  kernels.multiply = multiply<T>;
  kernels.mix_rows = mix_rows<T>;
  kernels.dots = dots<T>;
  kernels.dot_rows = dot_rows<T>;
  kernels.scalar_channel = scalar_channel<T>;
  kernels.sum_components = sum_components<T>;
  kernels.sum_channels = sum_channels<T>;
  kernels.read = read<T>;
  kernels.write = write<T>;
  kernels.to_rows = to_rows<T>;
  kernels.sum_samples = sum_samples<T>;
  return kernels;
}

}  // namespace

template <>
const ProductKernels<float>& product_kernels<float>() {
  static const ProductKernels<float> kernels = make<float>();
  return kernels;
}

template <>
const ProductKernels<double>& product_kernels<double>() {
  static const ProductKernels<double> kernels = make<double>();
  return kernels;
}

}  // namespace nf::NF_ISA
