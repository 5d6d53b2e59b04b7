// Vector lanes along whatever follows in memory.
#include "cpu/mlp/kernels.h"

#include "cpu/activate.h"
#include "cpu/transpose.h"

namespace nf::NF_ISA {
namespace {

template <class T>
void activate_any(Activation activation, int order, const T* x, int n, T before, T after, T* value, T* first,
                  T* second) {
  const auto& functions = order == 0 ? kActivate<T, 0> : order == 1 ? kActivate<T, 1> : kActivate<T, 2>;
  functions[int(activation)](x, n, before, after, value, first, second);
}

template <class T>
void multiply(const T* a, const T* b, int n, T* to) {
  for (int i = 0; i < n; i += kLanes<T>) store(to + i, load(a + i, n - i) * load(b + i, n - i), n - i);
}

template <class T>
void add(const T* a, int n, T* to) {
  for (int i = 0; i < n; i += kLanes<T>) store(to + i, load(to + i, n - i) + load(a + i, n - i), n - i);
}

template <class T>
void reverse(const T* first, const T* second, const T* x_tangent, int n, T* to_value, T* to_tangent) {
  for (int i = 0; i < n; i += kLanes<T>) {
    const Vec<T> slope = load(first + i, n - i), along = load(to_tangent + i, n - i);
    const Vec<T> bent = load(second + i, n - i) * load(x_tangent + i, n - i);
    store(to_value + i, load(to_value + i, n - i) * slope + along * bent, n - i);
    store(to_tangent + i, along * slope, n - i);
  }
}

template <class T>
void transpose_matrix(const T* from, int rows, int columns, T* to, int stride) {
  constexpr int lanes = kLanes<T>;
  for (int i = 0; i < stride; i += lanes)
    for (int j = 0; j < columns; j += lanes) {
      Vec<T> v[lanes];
      for (int k = 0; k < lanes; ++k)
        v[k] = i + k < rows ? load(from + int64_t(i + k) * columns + j, columns - j) : Vec<T>{};
      transpose<T>(v);
      for (int k = 0; k < lanes && j + k < columns; ++k) store(to + int64_t(j + k) * stride + i, v[k]);
    }
}

template <class T>
constexpr MlpKernels<T> kKernels{activate_any<T>, multiply<T>, add<T>, reverse<T>, transpose_matrix<T>};

}  // namespace

template <>
const MlpKernels<float>& mlp_kernels<float>() {
  return kKernels<float>;
}

template <>
const MlpKernels<double>& mlp_kernels<double>() {
  return kKernels<double>;
}

}  // namespace nf::NF_ISA
