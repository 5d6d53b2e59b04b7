// What the driver (product.cpp) and the per-instruction-set kernels agree on.
//
// Vector lanes run over samples. A tile is `vectors` · lanes samples; inside the kernels every operand stands as
// columns, element c of sample s at [c][s], so that any multiplicity, mode and degree uses full vectors.
#pragma once

#include <cstdint>

#include "cg/coupling.h"
#include "cg_tables.h"
#include "cpu/isa.h"

namespace nf {

// t[i] (+)= coefficient · w[i] · Σ C(ma, mb, mt) a[i][ma] b[i][mb] for `count` pairs of channels; the operands of
// pair i + 1 stand a constant step behind those of pair i. A step of 0: the same for all pairs.
template <class T>
struct Run {
  int count, vectors;
  const T *a, *b;
  T* t;
  int64_t step_a, step_b, step_t;
  const T* w;  // null: w = 1
  int64_t step_w;
  bool w_per_sample;  // w is a column for each pair, else a number
  bool add;           // to what t holds
  T coefficient;
  const Coupling* coupling;  // read by `couple_any`, as is
  T* scratch;                // room for one column of lanes a Coupling::Entry
};

// c[i][n] (+)= Σ_j a(i, j) b[j][n], n counting vectors. a(i, j) stands at i · a_row + j · a_depth; one of the two is 1
// element (a number, or with `a_per_sample` a vector).
template <class T>
struct MatrixProduct {
  int rows, depth, columns;
  const T* a;
  int64_t a_row, a_depth;
  bool a_per_sample;
  const T* b;
  int64_t b_depth;
  T* c;
  int64_t c_row;
  bool add;
};

// c[i][k] (+)= Σ_j a(i, j) b[j][k] for k < width, all numbers; one of a's steps is 1
template <class T>
struct RowMixture {
  int rows, depth, width;
  const T* a;
  int64_t a_row, a_depth;
  const T* b;
  int64_t b_depth;
  T* c;
  int64_t c_row;
  bool add;
};

// t[i][k] (+)= Σ_n a[i][n] b[i][k][n]: a vector each, for `rows` · `columns` of them
template <class T>
struct Dots {
  int rows, columns, length;  // length in vectors
  const T* a;
  int64_t a_row;
  const T* b;
  int64_t b_row, b_column;
  T* t;
  int64_t t_row, t_column;
  bool add;
};

// t[i][j] += Σ_k a[i][k] b[j][k] for k < length: numbers, each t a vector of partial sums, columns side by side
template <class T>
struct RowDots {
  int rows, columns, length;
  const T* a;
  int64_t a_row;
  const T* b;
  int64_t b_row;
  T* t;
  int64_t t_row;
};

// to_x += coefficient · Σ_i y[i] h[i] and to_y[i] += coefficient · x h[i] for i < count: columns; null: not wanted.
template <class T>
struct ScalarChannel {
  int count, vectors;
  const T *h, *x, *y;
  T *to_x, *to_y;
  T coefficient;
};

// Products of a column with each of `count` · `components` columns g[k][m].
template <class T>
struct ComponentProduct {
  int count, components, vectors;
  const T *x, *g;
  T* to;
  int64_t step;  // of `to`
  T coefficient;
};

template <class T>
struct ProductKernels {
  int lanes;
  void (*couple[kMaxL + 1][kMaxL + 1][kMaxL + 1])(const Run<T>&);  // by (la, lb, lt)
  void (*couple_any)(const Run<T>&);
  void (*multiply)(const MatrixProduct<T>&);
  void (*mix_rows)(const RowMixture<T>&);
  void (*dots)(const Dots<T>&);
  void (*dot_rows)(const RowDots<T>&);
  void (*scalar_channel)(const ScalarChannel<T>&);
  void (*sum_components)(const ComponentProduct<T>&);  // to[k] = coefficient · Σ_m x[m] g[k][m]
  void (*sum_channels)(const ComponentProduct<T>&);    // to[m] += coefficient · Σ_k x[k] g[k][m]

  // `count` elements from `column` on of vectors · lanes rows -> columns[count][vectors · lanes]
  void (*read)(const T* const* rows, int64_t column, int count, int vectors, T* columns);
  // and back into the first `valid` rows
  void (*write)(const T* columns, int64_t column, int count, int vectors, T* const* rows, int valid);
  // columns `step` elements apart -> rows of `count` elements padded with zeros to full vectors, one a sample
  void (*to_rows)(const T* columns, int64_t step, int count, int vectors, T* rows);
  // sums[c] += Σ_samples columns[c]
  void (*sum_samples)(const T* columns, int64_t count, int vectors, T* sums);
};

NF_KERNEL_TABLE(ProductKernels, product_kernels)

}  // namespace nf
