// One channel of gated irreps, f its activated gate with derivatives; x, g, c and what is written have `dim` components
// (int or Index). The vectors of csrc/cpu/gate, for the common dims, compute the same.
#pragma once

#include <type_traits>

#include "unroll.h"

namespace nf::NF_ISA {

template <class Dim, class Body>
NF_INLINE void each_component(Dim dim, const Body& body) {
  if constexpr (std::is_class_v<Dim>)
    unroll<Dim::value>(body);
  else
    for (int m = 0; m < dim; ++m) body(m);
}

template <class T, class Dim>
NF_INLINE void gate_channel(T f, const T* x, T* out, Dim dim) {
  each_component(dim, [&](auto m) { out[m] = f * x[m]; });
}

// The derivative by the gate.
template <class T, class Dim>
NF_INLINE T gate_vjp_channel(T f, T slope, const T* x, const T* g, T* dx, Dim dim) {
  T sum = 0;
  each_component(dim, [&](auto m) {
    sum += x[m] * g[m];
    dx[m] = f * g[m];
  });
  return slope * sum;
}

// Derivatives of c_gate f' (x · g) + f (c · g); that by the gate.
template <class T, class Dim>
NF_INLINE T gate_vjp_grad_channel(T f, T slope, T bend, const T* x, const T* g, const T* c, T c_gate, T* dx, T* dg,
                                  Dim dim) {
  const T s = c_gate * slope;
  T xg = 0, cg = 0;
  each_component(dim, [&](auto m) {
    xg += x[m] * g[m];
    cg += c[m] * g[m];
    dx[m] = s * g[m];
    dg[m] = s * x[m] + f * c[m];
  });
  return c_gate * bend * xg + slope * cg;
}

}  // namespace nf::NF_ISA
