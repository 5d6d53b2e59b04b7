// The gate's kernels, for each instruction set.
#pragma once

#include <cstdint>

#include "cpu/isa.h"
#include "problems/gate.h"

namespace nf {

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
