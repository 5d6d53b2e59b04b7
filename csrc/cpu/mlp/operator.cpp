// mlp: from torch tensors to the kernels.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <tuple>

#include "cpu/mlp/mlp.h"
#include "tensors.h"

namespace nf {
namespace {

struct MlpInputs {
  const MlpProblem& problem;
  Tensor x, w;
  std::optional<Tensor> first;

  MlpInputs(const Tensor& x_, const Tensor& w_, const std::optional<Tensor>& first_, const std::string& layers)
      : problem(MlpProblem::of(layers)), x(rows(x_, x_, problem.dim_in, "x")), w(as_contiguous(w_)) {
    if (first_) {
      check_index(*first_, x.numel() / problem.dim_in, "mlp: first");
      first = as_contiguous(*first_);
      const int64_t* place = first->const_data_ptr<int64_t>();
      bool fits = first->is_cpu();
      for (int64_t e = 0; fits && e < first->numel(); ++e)
        fits = place[e] >= 0 && place[e] <= e && place[place[e]] == place[e];
      STD_TORCH_CHECK(fits, "mlp: first must name for each row itself or one before it that names itself");
    }
    STD_TORCH_CHECK(w.is_cpu() && w.dim() == 1 && w.numel() == problem.weights && w.scalar_type() == x.scalar_type(),
                    "mlp: w must be a CPU tensor [", problem.weights, "] of the dtype of x");
  }

  // [..., dim] with the leading dimensions of `like`
  static Tensor rows(const Tensor& tensor, const Tensor& like, int64_t dim, const char* name) {
    STD_TORCH_CHECK(are_rows(tensor, like, dim) && tensor.is_cpu() && tensor.scalar_type() == like.scalar_type(),
                    "mlp: ", name, " must be a CPU tensor [..., ", dim, "] of the shape and dtype of the others");
    return as_contiguous(tensor);
  }

  template <class T>
  MlpOperands<T> operands() const {
    return {x.numel() / problem.dim_in, x.const_data_ptr<T>(), w.const_data_ptr<T>(),
            first ? first->const_data_ptr<int64_t>() : nullptr};
  }
};

// What is not wanted comes back empty.
struct Wanted {
  Tensor x, w;

  Wanted(const MlpInputs& in, bool want_x, bool want_w)
      : x(want_x ? new_rows(in.x, in.problem.dim_in) : new_tensor(in.x, {0, in.problem.dim_in})),
        w(new_tensor(in.w, {want_w ? in.problem.weights : 0})), want_x_(want_x), want_w_(want_w) {}

  template <class T>
  MlpGradients<T> gradients() {
    return {want_x_ ? x.mutable_data_ptr<T>() : nullptr, want_w_ ? w.mutable_data_ptr<T>() : nullptr};
  }

 private:
  bool want_x_, want_w_;
};

Tensor mlp_cpu(Tensor x, Tensor w, std::optional<Tensor> first, std::string layers) {
  const MlpInputs in(x, w, first, layers);
  Tensor out = new_rows(in.x, in.problem.dim_out);
  by_dtype(in.x, "mlp", [&](auto t) {
    using T = decltype(t);
    mlp<T>(in.problem, in.operands<T>(), out.mutable_data_ptr<T>(), threads());
  });
  return out;
}

std::tuple<Tensor, Tensor> mlp_gradient_cpu(Tensor x, Tensor w, Tensor g_, std::optional<Tensor> first,
                                            std::string layers, bool want_x, bool want_w) {
  const MlpInputs in(x, w, first, layers);
  const Tensor g = MlpInputs::rows(g_, in.x, in.problem.dim_out, "g");
  Wanted to(in, want_x, want_w);
  by_dtype(in.x, "mlp_gradient", [&](auto t) {
    using T = decltype(t);
    mlp_gradient<T>(in.problem, in.operands<T>(), g.const_data_ptr<T>(), to.gradients<T>(), threads());
  });
  return {to.x, to.w};
}

std::tuple<Tensor, Tensor, Tensor> mlp_gradient_tangent_cpu(Tensor x, Tensor w, Tensor g_, Tensor d_,
                                                            std::optional<Tensor> first, std::string layers,
                                                            bool want_x, bool want_w) {
  const MlpInputs in(x, w, first, layers);
  const Tensor g = MlpInputs::rows(g_, in.x, in.problem.dim_out, "g");
  const Tensor d = MlpInputs::rows(d_, in.x, in.problem.dim_in, "d");
  Wanted to(in, want_x, want_w);
  Tensor to_g = new_rows(in.x, in.problem.dim_out);
  by_dtype(in.x, "mlp_gradient_tangent", [&](auto t) {
    using T = decltype(t);
    mlp_gradient_tangent<T>(in.problem, in.operands<T>(), g.const_data_ptr<T>(), d.const_data_ptr<T>(),
                            to.gradients<T>(), to_g.mutable_data_ptr<T>(), threads());
  });
  return {to.x, to.w, to_g};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("mlp", TORCH_BOX(&nf::mlp_cpu));
  lib.impl("mlp_gradient", TORCH_BOX(&nf::mlp_gradient_cpu));
  lib.impl("mlp_gradient_tangent", TORCH_BOX(&nf::mlp_gradient_tangent_cpu));
}
