// gate on the GPU: from torch tensors to the kernels.
#include <algorithm>
#include <string>
#include <tuple>

#include "cuda/gate/gate.h"
#include "cuda/operator.h"

namespace nf::cuda {
namespace {

struct GateInputs {
  const GateProblem& problem;
  const Call call;
  const Tensor x;
  const int64_t rows;

  GateInputs(const Tensor& tensor, const std::string& segments)
      : problem(GateProblem::of(segments)), call("gate", tensor),
        x(call.rows(tensor, tensor, problem.dim_in, tensor.scalar_type(), "x")),
        rows(x.numel() / std::max(problem.dim_in, 1)) {}

  Tensor like_x(const Tensor& c) const { return call.rows(c, x, problem.dim_in, x.scalar_type(), "c"); }
  Tensor like_out(const Tensor& g) const { return call.rows(g, x, problem.dim_out, x.scalar_type(), "g"); }

  template <class Launch>
  void launch(const Launch& launch) const {
    by_dtype(x, "gate", [&](auto t) { call.launched(launch(t)); });
  }
};

Tensor gate_op(Tensor x, std::string segments) {
  const GateInputs in(x, segments);
  Tensor out = new_rows(in.x, in.problem.dim_out);
  in.launch([&](auto t) {
    using T = decltype(t);
    return gate<T>(in.problem, in.x.const_data_ptr<T>(), out.mutable_data_ptr<T>(), in.rows, in.call.stream);
  });
  return out;
}

Tensor gate_vjp_op(Tensor x, Tensor g_, std::string segments) {
  const GateInputs in(x, segments);
  const Tensor g = in.like_out(g_);
  Tensor dx = new_rows(in.x, in.problem.dim_in);
  in.launch([&](auto t) {
    using T = decltype(t);
    return gate_vjp<T>(in.problem, in.x.const_data_ptr<T>(), g.const_data_ptr<T>(), dx.mutable_data_ptr<T>(), in.rows,
                       in.call.stream);
  });
  return dx;
}

std::tuple<Tensor, Tensor> gate_vjp_grad_op(Tensor x, Tensor g_, Tensor c_, std::string segments) {
  const GateInputs in(x, segments);
  const Tensor g = in.like_out(g_), c = in.like_x(c_);
  Tensor dx = new_rows(in.x, in.problem.dim_in), dg = new_rows(in.x, in.problem.dim_out);
  in.launch([&](auto t) {
    using T = decltype(t);
    return gate_vjp_grad<T>(in.problem, in.x.const_data_ptr<T>(), g.const_data_ptr<T>(), c.const_data_ptr<T>(),
                            dx.mutable_data_ptr<T>(), dg.mutable_data_ptr<T>(), in.rows, in.call.stream);
  });
  return {dx, dg};
}

}  // namespace
}  // namespace nf::cuda

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, NF_CUDA_KEY, lib) {
  lib.impl("gate", TORCH_BOX(&nf::cuda::gate_op));
  lib.impl("gate_vjp", TORCH_BOX(&nf::cuda::gate_vjp_op));
  lib.impl("gate_vjp_grad", TORCH_BOX(&nf::cuda::gate_vjp_grad_op));
}
