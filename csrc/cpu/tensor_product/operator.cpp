// tensor_product and its derivatives as torch operators.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "cpu/tensor_product/product.h"
#include "tangents.h"

namespace nf {
namespace {

struct Inputs {
  static constexpr const char* kTangents[] = {"tensor_product: tangent of x", "tensor_product: tangent of y",
                                              "tensor_product: tangent of w"};
  const ProductProblem& problem;
  Tensor x, y, w;
  int64_t batch = 1;

  Inputs(const Tensor& x_, const Tensor& y_, const Tensor& w_, const std::string& paths)
      : problem(ProductProblem::of(paths)), x(as_contiguous(x_)), y(as_contiguous(y_)), w(as_contiguous(w_)) {
    for (const Tensor* tensor : {&x, &y, &w})
      if (tensor->size(0) != 1) batch = tensor->size(0);
    check_matrix(x, x.size(0) == 1 ? 1 : batch, problem.dim_x, "tensor_product: x");
    check_matrix(y, y.size(0) == 1 ? 1 : batch, problem.dim_y, "tensor_product: y");
    check_matrix(w, w.size(0) == 1 ? 1 : batch, problem.dim_w, "tensor_product: w");
  }

  void check_matrix(const Tensor& tensor, int64_t rows, int64_t columns, const char* name) const {
    check_rows(tensor, rows, x.scalar_type(), name);
    STD_TORCH_CHECK(tensor.size(1) == columns, name, " must have ", columns, " columns for these paths");
  }

  template <class T>
  ProductOperands<T> operands() const {
    return {batch, x.size(0), y.size(0), w.size(0), x.const_data_ptr<T>(), y.const_data_ptr<T>(),
            w.const_data_ptr<T>()};
  }
};

Tensor tensor_product_cpu(Tensor x, Tensor y, Tensor w, std::string paths) {
  const Inputs in(x, y, w, paths);
  Tensor out = new_tensor(in.x, {in.batch, in.problem.dim_out});
  by_dtype(in.x, "tensor_product", [&](auto t) {
    using T = decltype(t);
    tensor_product<T>(in.problem, in.operands<T>(), out.mutable_data_ptr<T>(), threads());
  });
  return out;
}

Tensor tensor_product_tangent_cpu(Tensor x, Tensor y, Tensor w, std::optional<Tensor> dx, std::optional<Tensor> dy,
                                  std::optional<Tensor> dw, std::string paths) {
  const Inputs in(x, y, w, paths);
  const Tangents along(in, dx, dy, dw);
  Tensor out = new_tensor(in.x, {in.batch, in.problem.dim_out});
  by_dtype(in.x, "tensor_product_tangent", [&](auto t) {
    using T = decltype(t);
    tensor_product_tangent<T>(in.problem, in.operands<T>(), along.direction<ProductTangent<T>, T>(), out.mutable_data_ptr<T>(), threads());
  });
  return out;
}

// body(cotangent, gradients) for the gradients wanted; what is not wanted comes back empty.
template <class Body>
std::tuple<Tensor, Tensor, Tensor> gradients(const Inputs& in, const Tensor& g, bool want_x, bool want_y, bool want_w,
                                             const Body& body) {
  const Tensor cotangent = as_contiguous(g);
  in.check_matrix(cotangent, in.batch, in.problem.dim_out, "tensor_product: g");
  const auto like = [](const Tensor& tensor, bool wanted) {
    return new_tensor(tensor, {wanted ? tensor.size(0) : 0, tensor.size(1)});
  };
  Tensor dx = like(in.x, want_x), dy = like(in.y, want_y), dw = like(in.w, want_w);
  by_dtype(in.x, "tensor_product_gradient", [&](auto t) {
    using T = decltype(t);
    const auto data = [](Tensor& tensor, bool wanted) { return wanted ? tensor.mutable_data_ptr<T>() : nullptr; };
    body(cotangent.const_data_ptr<T>(), ProductGradients<T>{data(dx, want_x), data(dy, want_y), data(dw, want_w)});
  });
  return {dx, dy, dw};
}

std::tuple<Tensor, Tensor, Tensor> tensor_product_gradient_cpu(Tensor x, Tensor y, Tensor w, Tensor g, std::string paths,
                                                               bool want_x, bool want_y, bool want_w) {
  const Inputs in(x, y, w, paths);
  return gradients(in, g, want_x, want_y, want_w, [&]<class T>(const T* cotangent, const ProductGradients<T>& to) {
    tensor_product_gradient<T>(in.problem, in.operands<T>(), cotangent, to, threads());
  });
}

std::tuple<Tensor, Tensor, Tensor> tensor_product_gradient_tangent_cpu(
    Tensor x, Tensor y, Tensor w, Tensor g, std::optional<Tensor> dx, std::optional<Tensor> dy, std::optional<Tensor> dw,
    std::string paths, bool want_x, bool want_y, bool want_w) {
  const Inputs in(x, y, w, paths);
  const Tangents along(in, dx, dy, dw);
  return gradients(in, g, want_x, want_y, want_w, [&]<class T>(const T* cotangent, const ProductGradients<T>& to) {
    tensor_product_gradient_tangent<T>(in.problem, in.operands<T>(), along.direction<ProductTangent<T>, T>(), cotangent, to, threads());
  });
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("tensor_product", TORCH_BOX(&nf::tensor_product_cpu));
  lib.impl("tensor_product_tangent", TORCH_BOX(&nf::tensor_product_tangent_cpu));
  lib.impl("tensor_product_gradient", TORCH_BOX(&nf::tensor_product_gradient_cpu));
  lib.impl("tensor_product_gradient_tangent", TORCH_BOX(&nf::tensor_product_gradient_tangent_cpu));
}
