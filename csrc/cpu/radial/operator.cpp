// radial: from torch tensors to the basis.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "formulas/radial.h"
#include "tensors.h"

namespace nf {
namespace {

constexpr int64_t kEdgesPerTask = 1 << 8;  // fewer are not worth waking a thread for

struct RadialInputs {
  Tensor x, roots;
  RadialBasis basis;

  RadialInputs(const Tensor& x_, double p, double factor, const Tensor& roots_)
      : x(rows(x_, x_, 1, "x")), roots(checked(roots_)),
        basis(roots.const_data_ptr<double>(), roots.numel(), p, factor) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Double, "radial: x must be float64");
  }

  static Tensor checked(const Tensor& roots) {
    STD_TORCH_CHECK(roots.is_cpu() && roots.dim() == 1 && roots.scalar_type() == ScalarType::Double,
                    "radial: roots must be a float64 CPU tensor [n]");
    return as_contiguous(roots);
  }

  // [..., dim] with the leading dimensions of x.
  static Tensor rows(const Tensor& tensor, const Tensor& like, int64_t dim, const char* name) {
    STD_TORCH_CHECK(are_rows(tensor, like, dim) && tensor.is_cpu(), "radial: ", name, " must be a CPU tensor [..., ",
                    dim, "] with the leading dimensions of the others");
    return as_contiguous(tensor);
  }

  template <class Body>
  void each(const Body& body) const {
    const double* lengths = x.const_data_ptr<double>();
    parallel(x.numel(), kEdgesPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i, lengths[i]);
    });
  }
};

Tensor radial_cpu(Tensor x, double p, double factor, Tensor roots, bool single) {
  const RadialInputs in(x, p, factor, roots);
  Tensor out = new_rows(in.x, in.basis.size, single ? ScalarType::Float : ScalarType::Double);
  by_dtype(out, "radial", [&](auto t) {
    using T = decltype(t);
    T* values = out.mutable_data_ptr<T>();
    in.each([&](int64_t i, double length) { in.basis.values(length, values + i * in.basis.size); });
  });
  return out;
}

Tensor radial_vjp_cpu(Tensor x, Tensor g_, double p, double factor, Tensor roots, bool) {
  const RadialInputs in(x, p, factor, roots);
  const Tensor g = RadialInputs::rows(g_, in.x, in.basis.size, "g");
  Tensor dx = new_rows(in.x, 1);
  double* slopes = dx.mutable_data_ptr<double>();
  by_dtype(g, "radial", [&](auto t) {
    const auto* cotangents = g.const_data_ptr<decltype(t)>();
    in.each([&](int64_t i, double length) { slopes[i] = in.basis.vjp(length, cotangents + i * in.basis.size); });
  });
  return dx;
}

std::tuple<Tensor, Tensor> radial_vjp_grad_cpu(Tensor x, Tensor g_, Tensor c_, double p, double factor, Tensor roots,
                                               bool) {
  const RadialInputs in(x, p, factor, roots);
  const Tensor g = RadialInputs::rows(g_, in.x, in.basis.size, "g"), c = RadialInputs::rows(c_, in.x, 1, "c");
  STD_TORCH_CHECK(c.scalar_type() == ScalarType::Double, "radial: c must be float64");
  Tensor dx = new_rows(in.x, 1);
  Tensor dg = new_rows(g, in.basis.size);
  const double* along = c.const_data_ptr<double>();
  double* curvatures = dx.mutable_data_ptr<double>();
  by_dtype(g, "radial", [&](auto t) {
    using T = decltype(t);
    const T* cotangents = g.const_data_ptr<T>();
    T* slopes = dg.mutable_data_ptr<T>();
    const int64_t n = in.basis.size;
    in.each([&](int64_t i, double length) {
      curvatures[i] = in.basis.vjp_grad(length, cotangents + i * n, along[i], slopes + i * n);
    });
  });
  return {dx, dg};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("radial", TORCH_BOX(&nf::radial_cpu));
  lib.impl("radial_vjp", TORCH_BOX(&nf::radial_vjp_cpu));
  lib.impl("radial_vjp_grad", TORCH_BOX(&nf::radial_vjp_grad_cpu));
}
