// The tensor product and its gradient, on plain pointers.
#pragma once

#include <cstdint>

#include "cpu/parallel.h"
#include "cpu/tensor_product/paths.h"

namespace nf {

// Rows of x, y and w: one for each of `batch` samples, or a single one that all share.
template <class T>
struct ProductOperands {
  int64_t batch, rows_x, rows_y, rows_w;
  const T *x, *y, *w;
};

// A direction to differentiate in, shapes as the operands'; what is null stays fixed.
template <class T>
struct ProductTangent {
  const T *x, *y, *w;
};

// Shapes as the operands'; null: not wanted.
template <class T>
struct ProductGradients {
  T *x, *y, *w;
};

// out [batch, dim_out]
template <class T>
void tensor_product(const ProductProblem&, const ProductOperands<T>&, T* out, const Threads&);

// The derivative of out in that direction.
template <class T>
void tensor_product_tangent(const ProductProblem&, const ProductOperands<T>&, const ProductTangent<T>&, T* out,
                            const Threads&);

// Gradients of Σ g · out for g [batch, dim_out].
template <class T>
void tensor_product_gradient(const ProductProblem&, const ProductOperands<T>&, const T* g, const ProductGradients<T>&,
                             const Threads&);

// The derivatives of these gradients in that direction.
template <class T>
void tensor_product_gradient_tangent(const ProductProblem&, const ProductOperands<T>&, const ProductTangent<T>&,
                                     const T* g, const ProductGradients<T>&, const Threads&);

// --- scalar attributes that are rows of a table: the weights contracted with each, then rows mixed by one of these ---

// `contracted` [rows, contracted_weights(problem)] of table [rows, dim_y] and w [dim_w], for problems with scalar attributes.
int64_t contracted_weights(const ProductProblem&);
template <class T>
void contract_attributes(const ProductProblem&, int64_t rows, const T* table, const T* w, T* contracted, const Threads&);

// Gradients of Σ g · contracted; null: not wanted.
template <class T>
void contract_attributes_gradient(const ProductProblem&, int64_t rows, const T* table, const T* w, const T* g,
                                  T* to_table, T* to_w, const Threads&);

// x [batch, dim_x], contracted weights w [rows, ·], and the row of w of each sample.
template <class T>
struct MixByRowOperands {
  int64_t batch, rows;
  const T *x, *w;
  const int64_t* row;
};

// out [batch, dim_out]
template <class T>
void mix_by_row(const ProductProblem&, const MixByRowOperands<T>&, T* out, const Threads&);

// Gradients of Σ g · out; null: not wanted.
template <class T>
void mix_by_row_gradient(const ProductProblem&, const MixByRowOperands<T>&, const T* g, T* to_x, T* to_w, const Threads&);

}  // namespace nf
