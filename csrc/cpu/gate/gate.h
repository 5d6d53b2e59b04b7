// Activations of scalars, and irreps times activated scalars of their own; formulas: nequip_fast/ops/gate.py.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/isa.h"

namespace nf {

// In the order of ACTIVATIONS in nequip_fast/ops/gate.py.
enum class Activation { identity, silu, tanh, sigmoid, abs, ssp, softplus, relu, mish };
inline constexpr int kActivations = 9;

// Offsets of channels that are treated alike, in elements of a row; gate is −1 for scalars, whose dim is 1.
struct GateSegment {
  int x, gate, out, mul, dim;
  Activation activation;
  double constant;
};

struct GateProblem {
  std::vector<GateSegment> segments;
  int dim_in, dim_out;
  bool reads_all;  // no part of the input is left out
};

// Rows begin … end − 1.
template <class T>
struct GateKernels {
  void (*gate)(const GateProblem&, const T* x, T* out, int64_t begin, int64_t end);
  void (*vjp)(const GateProblem&, const T* x, const T* g, T* dx, int64_t begin, int64_t end);
  // The derivatives of c · vjp(x, g) with respect to x and g.
  void (*vjp_grad)(const GateProblem&, const T* x, const T* g, const T* c, T* dx, T* dg, int64_t begin, int64_t end);
};

NF_KERNEL_TABLE(GateKernels, gate_kernels)

}  // namespace nf
