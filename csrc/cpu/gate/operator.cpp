// gate: from torch tensors to the kernels.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "cpu/gate/gate.h"
#include "tensors.h"

namespace nf {
namespace {

constexpr int64_t kNumbersPerTask = 1 << 15;  // fewer are not worth waking a thread for

// Rows of `dim` numbers, the leading dimensions of `like`.
Tensor gate_rows(const Tensor& tensor, const Tensor& like, int64_t dim, const char* name) {
  STD_TORCH_CHECK(are_rows(tensor, like, dim) && tensor.is_cpu() && tensor.scalar_type() == like.scalar_type(),
                  "gate: ", name, " must be a CPU tensor [..., ", dim, "] of the shape and dtype of the others");
  return as_contiguous(tensor);
}

struct GateInputs {
  const GateProblem& problem;
  Tensor x;

  GateInputs(const Tensor& tensor, const std::string& segments)
      : problem(GateProblem::of(segments)), x(gate_rows(tensor, tensor, problem.dim_in, "x")) {}

  template <class Body>
  void each(const Body& body) const {
    const int64_t width = std::max(problem.dim_in, 1), rows = x.numel() / width;
    by_dtype(x, "gate", [&](auto t) {
      parallel(rows, kNumbersPerTask / width + 1,
               [&](int64_t begin, int64_t end) { body(gate_kernels<decltype(t)>(), t, begin, end); });
    });
  }
};

Tensor gate_cpu(Tensor x, std::string segments) {
  const GateInputs in(x, segments);
  Tensor out = new_rows(in.x, in.problem.dim_out);
  in.each([&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.gate(in.problem, in.x.const_data_ptr<T>(), out.mutable_data_ptr<T>(), begin, end);
  });
  return out;
}

Tensor gate_vjp_cpu(Tensor x, Tensor g_, std::string segments) {
  const GateInputs in(x, segments);
  const Tensor g = gate_rows(g_, in.x, in.problem.dim_out, "g");
  Tensor dx = new_rows(in.x, in.problem.dim_in);
  in.each([&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.vjp(in.problem, in.x.const_data_ptr<T>(), g.const_data_ptr<T>(), dx.mutable_data_ptr<T>(), begin, end);
  });
  return dx;
}

std::tuple<Tensor, Tensor> gate_vjp_grad_cpu(Tensor x, Tensor g_, Tensor c_, std::string segments) {
  const GateInputs in(x, segments);
  const Tensor g = gate_rows(g_, in.x, in.problem.dim_out, "g"), c = gate_rows(c_, in.x, in.problem.dim_in, "c");
  Tensor dx = new_rows(in.x, in.problem.dim_in), dg = new_rows(in.x, in.problem.dim_out);
  in.each([&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.vjp_grad(in.problem, in.x.const_data_ptr<T>(), g.const_data_ptr<T>(), c.const_data_ptr<T>(),
                     dx.mutable_data_ptr<T>(), dg.mutable_data_ptr<T>(), begin, end);
  });
  return {dx, dg};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("gate", TORCH_BOX(&nf::gate_cpu));
  lib.impl("gate_vjp", TORCH_BOX(&nf::gate_vjp_cpu));
  lib.impl("gate_vjp_grad", TORCH_BOX(&nf::gate_vjp_grad_cpu));
}
