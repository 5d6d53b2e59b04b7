// radial on the GPU: from torch tensors to the kernels.
#include <tuple>

#include "cuda/operator.h"
#include "cuda/radial/radial.h"

namespace nf::cuda {
namespace {

struct RadialInputs {
  const Call call;
  const Tensor x, roots;
  const RadialProblem problem;

  RadialInputs(const Tensor& x_, double p, double factor, const Tensor& roots_)
      : call("radial", x_), x(call.rows(x_, x_, 1, ScalarType::Double, "x")), roots(checked(roots_)),
        problem{roots.const_data_ptr<double>(), roots.numel(), p, factor} {}

  Tensor checked(const Tensor& roots) const {
    call.check_device(roots, "roots");
    STD_TORCH_CHECK(roots.dim() == 1 && roots.scalar_type() == ScalarType::Double, "radial: roots must be float64 [n]");
    return as_contiguous(roots);
  }

  Tensor like_out(const Tensor& g) const { return call.rows(g, x, problem.size, g.scalar_type(), "g"); }
  const double* lengths() const { return x.const_data_ptr<double>(); }

  template <class Launch>
  void launch(const Tensor& out, const Launch& launch) const {
    by_dtype(out, "radial", [&](auto t) { call.launched(launch(t)); });
  }
};

Tensor radial_op(Tensor x, double p, double factor, Tensor roots, bool single) {
  const RadialInputs in(x, p, factor, roots);
  Tensor out = new_rows(in.x, in.problem.size, single ? ScalarType::Float : ScalarType::Double);
  in.launch(out, [&](auto t) {
    using T = decltype(t);
    return radial<T>(in.problem, in.lengths(), out.mutable_data_ptr<T>(), in.x.numel(), in.call.stream);
  });
  return out;
}

Tensor radial_vjp_op(Tensor x, Tensor g_, double p, double factor, Tensor roots, bool) {
  const RadialInputs in(x, p, factor, roots);
  const Tensor g = in.like_out(g_);
  Tensor dx = new_rows(in.x, 1);
  in.launch(g, [&](auto t) {
    using T = decltype(t);
    return radial_vjp<T>(in.problem, in.lengths(), g.const_data_ptr<T>(), dx.mutable_data_ptr<double>(), in.x.numel(),
                         in.call.stream);
  });
  return dx;
}

std::tuple<Tensor, Tensor> radial_vjp_grad_op(Tensor x, Tensor g_, Tensor c_, double p, double factor, Tensor roots,
                                              bool) {
  const RadialInputs in(x, p, factor, roots);
  const Tensor g = in.like_out(g_), c = in.call.rows(c_, in.x, 1, ScalarType::Double, "c");
  Tensor dx = new_rows(in.x, 1), dg = new_rows(g, in.problem.size);
  in.launch(g, [&](auto t) {
    using T = decltype(t);
    return radial_vjp_grad<T>(in.problem, in.lengths(), g.const_data_ptr<T>(), c.const_data_ptr<double>(),
                              dx.mutable_data_ptr<double>(), dg.mutable_data_ptr<T>(), in.x.numel(), in.call.stream);
  });
  return {dx, dg};
}

}  // namespace
}  // namespace nf::cuda

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, NF_CUDA_KEY, lib) {
  lib.impl("radial", TORCH_BOX(&nf::cuda::radial_op));
  lib.impl("radial_vjp", TORCH_BOX(&nf::cuda::radial_vjp_op));
  lib.impl("radial_vjp_grad", TORCH_BOX(&nf::cuda::radial_vjp_grad_op));
}
