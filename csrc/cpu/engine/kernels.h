// What the engine needs besides the convolution's kernels, for each instruction set. Rows are channel-last: a segment
// of `mul` channels of degree l is [2l + 1][padded], `padded` whole vectors.
#pragma once

#include <cstdint>

#include "cpu/gate/gate.h"
#include "cpu/isa.h"

namespace nf {

// Where distances lie between the knots of the radial tables, and the quintic Hermite basis there: what multiplies the
// slope and the curvature at the lower knot, the difference of the values at both, and the slope and the curvature at the
// upper one; for the value, to be added to that at the lower knot, then for its derivative. With the difference from the
// table the derivative loses no digits, however narrow the interval.
template <class T>
struct TablePlaces {
  const int32_t* knot;
  const T* basis;  // [2][5][stride]
  int64_t stride;  // at least the number of places
};
inline constexpr int kBasis = 10;
inline constexpr int kTableRows = 4;  // of a knot: value, slope, curvature, difference to the next value

// One step of a nonlinearity: scalars through the activation (`gate` kNoGate, one component), channels times activated
// scalars of their own, or (`gate` kNormGate) channels x as x f(|x|)/|x|, norms below kShortestNorm taken for it.
inline constexpr int kNoGate = -1, kNormGate = -2;
inline constexpr double kShortestNorm = 1e-8;
struct ChannelGate {
  int x, gate, out, padded, components;  // offsets into rows before and after
  Activation activation;
  double constant;
};

template <class T>
struct EngineKernels {
  int lanes;

  // c[r] (+)= Σ_k a[r][k] b[k] for rows of `width` elements, whole vectors; b [inner][width].
  void (*multiply)(int rows, const T* const* a, int inner, const T* b, int width, T* const* c, bool add);

  // basis [kBasis][count], whole vectors, at t = 0 … 1 of intervals of this width and 1/width
  void (*hermite)(const T* t, const T* width, const T* density, int64_t count, T* basis);
  // w[e] = the weights of one path at `edges` places from `first` on; the table is
  // [knots][width / lanes][kTableRows][lanes].
  void (*weights)(const TablePlaces<T>&, int first, int edges, const T* table, int width, T* w);
  // … and slope[e] their derivatives
  void (*weights_and_slopes)(const TablePlaces<T>&, int first, int edges, const T* table, int width, T* w, T* slope);
  // to[e][lane] += a[e][u] b[e][u] for u = lane, lane + lanes … in rows of `width`
  void (*add_products)(const T* a, const T* b, int rows, int width, T* to);

  // x = constant · activation(x) for `count` elements, whole vectors; slope, unless null: the derivatives
  void (*activate)(Activation, double constant, T* x, T* slope, int64_t count);

  void (*gate)(const ChannelGate&, const T* x, T* out);
  // dx is overwritten where the gate reads x.
  void (*gate_vjp)(const ChannelGate&, const T* x, const T* g, T* dx);

  // out[component][edge lane] of `count` rows of `dim` elements one after the other, zero in the lanes beyond
  void (*columns)(const T* rows, int dim, int count, T* out);
  // rows[e][c] += Σ over lanes of partial[e][c], for `count` edges of `dim` components
  void (*add_sums)(const T* partial, int dim, int count, T* rows);
};

NF_KERNEL_TABLE(EngineKernels, engine_kernels)

}  // namespace nf
