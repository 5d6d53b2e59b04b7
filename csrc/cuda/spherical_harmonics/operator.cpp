// spherical_harmonics on the GPU: from torch tensors to the kernels.
#include <string>
#include <tuple>
#include <vector>

#include "cuda/operator.h"
#include "cuda/spherical_harmonics/harmonics.h"

namespace nf::cuda {
namespace {

struct HarmonicInputs {
  const HarmonicProblem problem;
  const Call call;
  const Tensor r;
  const int64_t rows;

  HarmonicInputs(const Tensor& vectors, const std::vector<int64_t>& degrees, const std::string& normalization,
                 bool normalize)
      : problem(degrees, normalization, normalize), call("spherical_harmonics", vectors),
        r(call.rows(vectors, vectors, 3, vectors.scalar_type(), "vectors")), rows(r.numel() / 3) {}

  Tensor like_harmonics(const Tensor& g) const { return call.rows(g, r, problem.dim(), r.scalar_type(), "g"); }

  template <class Launch>
  void launch(const Launch& launch) const {
    by_dtype(r, "spherical_harmonics", [&](auto t) { call.launched(launch(t)); });
  }
};

Tensor spherical_harmonics_op(Tensor vectors, std::vector<int64_t> degrees, std::string normalization, bool normalize) {
  const HarmonicInputs in(vectors, degrees, normalization, normalize);
  Tensor y = new_rows(in.r, in.problem.dim());
  in.launch([&](auto t) {
    using T = decltype(t);
    return harmonics<T>(in.problem, in.r.const_data_ptr<T>(), y.mutable_data_ptr<T>(), in.rows, in.call.stream);
  });
  return y;
}

Tensor spherical_harmonics_vjp_op(Tensor vectors, Tensor g_, std::vector<int64_t> degrees, std::string normalization,
                                  bool normalize) {
  const HarmonicInputs in(vectors, degrees, normalization, normalize);
  const Tensor g = in.like_harmonics(g_);
  Tensor dr = new_rows(in.r, 3);
  in.launch([&](auto t) {
    using T = decltype(t);
    return harmonics_vjp<T>(in.problem, in.r.const_data_ptr<T>(), g.const_data_ptr<T>(), dr.mutable_data_ptr<T>(),
                            in.rows, in.call.stream);
  });
  return dr;
}

std::tuple<Tensor, Tensor> spherical_harmonics_vjp_grad_op(Tensor vectors, Tensor g_, Tensor c_,
                                                           std::vector<int64_t> degrees, std::string normalization,
                                                           bool normalize) {
  const HarmonicInputs in(vectors, degrees, normalization, normalize);
  const Tensor g = in.like_harmonics(g_), c = in.call.rows(c_, in.r, 3, in.r.scalar_type(), "c");
  Tensor dr = new_rows(in.r, 3), dg = new_rows(in.r, in.problem.dim());
  in.launch([&](auto t) {
    using T = decltype(t);
    return harmonics_vjp_grad<T>(in.problem, in.r.const_data_ptr<T>(), g.const_data_ptr<T>(), c.const_data_ptr<T>(),
                                 dr.mutable_data_ptr<T>(), dg.mutable_data_ptr<T>(), in.rows, in.call.stream);
  });
  return {dr, dg};
}

}  // namespace
}  // namespace nf::cuda

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, NF_CUDA_KEY, lib) {
  lib.impl("spherical_harmonics", TORCH_BOX(&nf::cuda::spherical_harmonics_op));
  lib.impl("spherical_harmonics_vjp", TORCH_BOX(&nf::cuda::spherical_harmonics_vjp_op));
  lib.impl("spherical_harmonics_vjp_grad", TORCH_BOX(&nf::cuda::spherical_harmonics_vjp_grad_op));
}
