// Matrix products with blocks of the result held in registers.
#pragma once

#include <algorithm>

#include "cpu/tensor_product/kernels.h"
#include "cpu/simd.h"
#include "unroll.h"

namespace nf::NF_ISA {

#if defined(__AVX512F__)
inline constexpr int kAccumulators = 24;  // of 32 registers
#else
inline constexpr int kAccumulators = 12;  // of 16
#endif
inline constexpr int kMaxColumns = 4, kMaxRows = 12;  // of a block; columns in vectors
inline constexpr int kPanelBytes = 32 * 1024;

// How a(i, j) is found and what it is: which step is one element, and whether an element is a number or a vector.
enum class Left { unit_row, unit_depth, unit_row_per_sample, unit_depth_per_sample };

template <class T, Left left, int rows, int columns>
[[gnu::always_inline]] inline void block(const MatrixProduct<T>& p, const T* a, const T* b, T* c) {
  constexpr bool per_sample = left == Left::unit_row_per_sample || left == Left::unit_depth_per_sample;
  constexpr bool unit_row = left == Left::unit_row || left == Left::unit_row_per_sample;
  constexpr int64_t unit = per_sample ? kLanes<T> : 1;
  const int64_t a_row = unit_row ? unit : p.a_row, a_depth = unit_row ? p.a_depth : unit;
  Vec<T> sum[rows][columns]{};
  for (int j = 0; j < p.depth; ++j) {
    Vec<T> right[columns];
    unroll<columns>([&](auto n) { right[n] = load(b + n * kLanes<T>); });
    unroll<rows>([&](auto i) {
      Vec<T> value;
      if constexpr (per_sample) value = load(a + i * a_row);
      else value = broadcast<T>(a[i * a_row]);
      unroll<columns>([&](auto n) { sum[i][n] += value * right[n]; });
    });
    a += a_depth;
    b += p.b_depth;
  }
  unroll<rows>([&](auto i) {  // summed apart before it is added: short sums of short sums round less than long ones
    unroll<columns>([&](auto n) {
      T* at = c + i * p.c_row + n * kLanes<T>;
      store(at, p.add ? load(at) + sum[i][n] : sum[i][n]);
    });
  });
}

// All rows, in as few blocks of at most `most` as possible, which differ by one row: a small block wastes the processor.
template <class T, Left left, int most, int columns>
void block_column(const MatrixProduct<T>& p, const T* b, T* c) {
  constexpr bool per_sample = left == Left::unit_row_per_sample || left == Left::unit_depth_per_sample;
  constexpr bool unit_row = left == Left::unit_row || left == Left::unit_row_per_sample;
  const int64_t a_row = unit_row ? (per_sample ? kLanes<T> : 1) : p.a_row;
  for (int first = 0, size; first < p.rows; first += size) {
    const int left_over = p.rows - first, blocks = (left_over + most - 1) / most;
    size = (left_over + blocks - 1) / blocks;
    unroll<most>([&](auto i) {
      if (size == i + 1) block<T, left, i + 1, columns>(p, p.a + first * a_row, b, c + first * p.c_row);
    });
  }
}

// The depth in parts whose rows of b stay in the first-level cache for all blocks of rows.
template <class T, Left left, int columns>
void panel(MatrixProduct<T> p, const T* b, T* c) {
  constexpr int most = kPanelBytes / (columns * kVectorBytes);
  const int parts = std::max(1, (p.depth + most - 1) / most), depth = p.depth;
  for (int part = 0; part < parts; ++part) {
    const int first = int(int64_t(depth) * part / parts), end = int(int64_t(depth) * (part + 1) / parts);
    p.depth = end - first;
    block_column<T, left, std::min(kMaxRows, kAccumulators / columns), columns>(p, b + first * p.b_depth, c);
    p.a += p.depth * (left == Left::unit_depth ? 1 : left == Left::unit_depth_per_sample ? kLanes<T> : p.a_depth);
    p.add = true;
  }
}

template <class T, Left left>
void multiply_with(const MatrixProduct<T>& p) {
  for (int n = 0; n < p.columns; n += kMaxColumns) {
    const T* b = p.b + n * kLanes<T>;
    T* c = p.c + n * kLanes<T>;
    switch (std::min(p.columns - n, kMaxColumns)) {
      case 1: panel<T, left, 1>(p, b, c); break;
      case 2: panel<T, left, 2>(p, b, c); break;
      case 3: panel<T, left, 3>(p, b, c); break;
      case 4: panel<T, left, 4>(p, b, c); break;
    }
  }
}

template <class T>
void multiply(const MatrixProduct<T>& p) {
  const bool unit_row = p.a_row == (p.a_per_sample ? kLanes<T> : 1);
  if (p.a_per_sample)
    unit_row ? multiply_with<T, Left::unit_row_per_sample>(p) : multiply_with<T, Left::unit_depth_per_sample>(p);
  else
    unit_row ? multiply_with<T, Left::unit_row>(p) : multiply_with<T, Left::unit_depth>(p);
}

template <class T>
void mix_rows(const RowMixture<T>& m) {
  const int whole = m.width / kLanes<T>, k = whole * kLanes<T>, rest = m.width - k;
  multiply<T>({m.rows, m.depth, whole, m.a, m.a_row, m.a_depth, false, m.b, m.b_depth, m.c, m.c_row, m.add});
  for (int i = 0; rest > 0 && i < m.rows; ++i) {
    T* const c = m.c + i * m.c_row + k;
    Vec<T> sum = m.add ? load_some(c, rest) : Vec<T>{};
    for (int j = 0; j < m.depth; ++j)
      sum += m.a[i * m.a_row + j * m.a_depth] * load_some(m.b + j * m.b_depth + k, rest);
    store_some(c, sum, rest);
  }
}

template <class T>
void dots(const Dots<T>& d) {
  for (int i = 0; i < d.rows; ++i)
    for (int k = 0; k < d.columns; ++k) {
      const T *a = d.a + i * d.a_row, *b = d.b + i * d.b_row + k * d.b_column;
      T* t = d.t + i * d.t_row + k * d.t_column;
      Vec<T> sum = d.add ? load(t) : Vec<T>{};
      for (int n = 0; n < d.length; ++n) sum += load(a + n * kLanes<T>) * load(b + n * kLanes<T>);
      store(t, sum);
    }
}

template <class T>
void dot_rows(const RowDots<T>& d) {
  const int whole = d.length / kLanes<T> * kLanes<T>, rest = d.length - whole;
  for (int j = 0; j < d.columns; ++j)
    for (int i = 0; i < d.rows; ++i) {
      const T *a = d.a + i * d.a_row, *b = d.b + j * d.b_row;
      T* t = d.t + i * d.t_row + j * kLanes<T>;
      Vec<T> sum = load(t);
      for (int k = 0; k < whole; k += kLanes<T>) sum += load(a + k) * load(b + k);
      if (rest > 0) sum += load_some(a + whole, rest) * load_some(b + whole, rest);
      store(t, sum);
    }
}

}  // namespace nf::NF_ISA
