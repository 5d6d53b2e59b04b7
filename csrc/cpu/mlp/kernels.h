// What the driver (mlp.cpp) and the per-instruction-set kernels agree on, beside the products of matrices of
// cpu/tensor_product.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "problems/gate.h"

namespace nf {

template <class T>
struct MlpKernels {
  // value = after · f(before · x) and its derivatives by x, of n numbers; up to `order` of them
  void (*activate)(Activation, int order, const T* x, int n, T before, T after, T* value, T* first, T* second);
  // to = a · b
  void (*multiply)(const T* a, const T* b, int n, T* to);
  // to += a, n numbers
  void (*add)(const T* a, int n, T* to);
  // Of S = to_value · f(x) + to_tangent · f'(x) x_tangent: to_value becomes ∂S/∂x, to_tangent ∂S/∂x_tangent.
  void (*reverse)(const T* first, const T* second, const T* x_tangent, int n, T* to_value, T* to_tangent);
  // [rows][columns] -> [columns][stride], stride at least rows, in whole vectors; zero beyond the rows
  void (*transpose)(const T* from, int rows, int columns, T* to, int stride);
};

NF_KERNEL_TABLE(MlpKernels, mlp_kernels)

}  // namespace nf
