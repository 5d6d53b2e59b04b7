// Multilayer perceptrons over rows, and their derivatives.
#pragma once

#include <cstdint>

#include "cpu/parallel.h"
#include "problems/mlp.h"

namespace nf {

template <class T>
struct MlpOperands {
  int64_t rows;
  const T *x, *w;  // [rows][dim_in]; the layers' matrices, one after the other
  // Null, or [rows]: what is said of x[e] is meant of x[first[e]], which gets the gradient too. first[e] ≤ e, and
  // first[first[e]] is first[e].
  const int64_t* first;
};

template <class T>
struct MlpGradients {
  T *x, *w;  // null: not wanted
};

// out [rows][dim_out]
template <class T>
void mlp(const MlpProblem&, const MlpOperands<T>&, T* out, const Threads&);

// Gradients of g · mlp(x, w).
template <class T>
void mlp_gradient(const MlpProblem&, const MlpOperands<T>&, const T* g, const MlpGradients<T>&, const Threads&);

// Gradients of d · (gradient by x), which is g · (derivative of mlp along d): by x and w, and by g.
template <class T>
void mlp_gradient_tangent(const MlpProblem&, const MlpOperands<T>&, const T* g, const T* d, const MlpGradients<T>&,
                          T* to_g, const Threads&);

}  // namespace nf
