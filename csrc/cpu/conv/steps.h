// One path made ready for the kernels: which of them, and their arguments.
#pragma once

#include "cpu/conv/kernels.h"

namespace nf {

// [0]: as it is; [1]: with a tangent.
template <class Function>
struct Step {
  Function run[2];
  PathArgs args;
};
template <class T>
using GatherStep = Step<typename ConvKernels<T>::Gather>;
template <class T>
using GradientStep = Step<typename ConvKernels<T>::Gradient>;

inline CouplingView view(int l1, int l2, int l3) {
  const Coupling& cg = coupling(l1, l2, l3);
  return {l1, l3, int(cg.entries.size()), cg.entries.data(), cg.terms.data()};
}

// (−1)^(l1 + l2 + l3): C(l3, l2, l1) over C(l1, l2, l3)
inline double transposed_sign(int l1, int l2, int l3) { return (l1 + l2 + l3) % 2 ? -1 : 1; }

// `args` without its coupling
template <class T>
GatherStep<T> gather_step(const ConvKernels<T>& kernels, int l1, int l2, int l3, PathArgs args) {
  const auto& of_path = kernels.of(l1, l2, l3, args.w_stride);
  if (&of_path == &kernels.any) {  // it takes the coupling by rows of the result
    args.coupling = view(l3, l2, l1);
    args.coefficient *= transposed_sign(l1, l2, l3);
  } else {
    args.coupling = view(l1, l2, l3);
  }
  return {{of_path.gather[0], of_path.gather[1]}, args};
}

template <class T>
GradientStep<T> gradient_step(const ConvKernels<T>& kernels, int l1, int l2, int l3, PathArgs args) {
  const auto& of_path = kernels.of(l1, l2, l3, args.w_stride);
  args.coupling = view(l1, l2, l3);
  return {{of_path.gradient[0], of_path.gradient[1]}, args};
}

// Elements of Tile::scratch that the step needs.
template <class Function>
int64_t scratch(const Step<Function>& step, int lanes) {
  return 2 * int64_t(step.args.coupling.count) * lanes;
}

}  // namespace nf
