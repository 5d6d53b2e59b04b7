// tensor_product and its gradient as torch operators.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "cpu/tensor_product/product.h"
#include "tensors.h"

namespace nf {
namespace {

constexpr size_t kNumbers = 11;  // integers a path

ProductProblem problem_of(const std::vector<int64_t>& numbers, const std::vector<double>& coefficients, int64_t dim_x,
                          int64_t dim_y, int64_t dim_w, int64_t dim_out) {
  STD_TORCH_CHECK(numbers.size() == kNumbers * coefficients.size(),
                  "tensor_product: a path is eleven integers and one coefficient");
  ProductProblem problem{{}, dim_x, dim_y, dim_w, dim_out};
  for (size_t k = 0; k < coefficients.size(); ++k) {
    const int64_t* n = numbers.data() + kNumbers * k;
    STD_TORCH_CHECK(n[0] >= 0 && n[0] <= int64_t(Mode::pairs_w), "tensor_product: unknown mode ", n[0]);
    problem.paths.push_back({Mode(n[0]), int(n[1]), int(n[2]), int(n[3]), int(n[4]), int(n[5]), int(n[6]), n[7], n[8],
                             n[9], n[10], coefficients[k]});
  }
  problem.check();
  return problem;
}

struct Inputs {
  Tensor x, y, w;
  int64_t batch = 1;
  ProductProblem problem;

  Inputs(const Tensor& x_, const Tensor& y_, const Tensor& w_, const std::vector<int64_t>& paths,
         const std::vector<double>& coefficients, int64_t dim_out)
      : x(as_contiguous(x_)), y(as_contiguous(y_)), w(as_contiguous(w_)) {
    for (const Tensor* tensor : {&x, &y, &w})
      if (tensor->size(0) != 1) batch = tensor->size(0);
    check_rows(x, x.size(0) == 1 ? 1 : batch, x.scalar_type(), "tensor_product: x");
    check_rows(y, y.size(0) == 1 ? 1 : batch, x.scalar_type(), "tensor_product: y");
    check_rows(w, w.size(0) == 1 ? 1 : batch, x.scalar_type(), "tensor_product: w");
    problem = problem_of(paths, coefficients, x.size(1), y.size(1), w.size(1), dim_out);
  }

  template <class T>
  ProductOperands<T> operands() const {
    return {batch, x.size(0), y.size(0), w.size(0), x.const_data_ptr<T>(), y.const_data_ptr<T>(),
            w.const_data_ptr<T>()};
  }
};

Threads threads() { return {std::max(1, int(torch::stable::get_num_threads())), parallel}; }

Tensor tensor_product_cpu(Tensor x, Tensor y, Tensor w, std::vector<int64_t> paths, std::vector<double> coefficients,
                          int64_t dim_out) {
  const Inputs in(x, y, w, paths, coefficients, dim_out);
  Tensor out = new_tensor(in.x, {in.batch, dim_out});
  by_dtype(in.x, "tensor_product", [&](auto t) {
    using T = decltype(t);
    tensor_product<T>(in.problem, in.operands<T>(), out.mutable_data_ptr<T>(), threads());
  });
  return out;
}

// A gradient that is not needed comes back as a tensor [0].
std::tuple<Tensor, Tensor, Tensor> tensor_product_grad_cpu(Tensor x, Tensor y, Tensor w, Tensor g,
                                                           std::vector<int64_t> paths, std::vector<double> coefficients,
                                                           bool need_x, bool need_y, bool need_w) {
  const Tensor cotangent = as_contiguous(g);
  const Inputs in(x, y, w, paths, coefficients, cotangent.size(1));
  check_rows(cotangent, in.batch, in.x.scalar_type(), "tensor_product: g");
  const auto like = [](const Tensor& tensor, bool need) {
    return need ? new_tensor(tensor, {tensor.size(0), tensor.size(1)})
                : new_tensor(tensor, {0});
  };
  Tensor dx = like(in.x, need_x), dy = like(in.y, need_y), dw = like(in.w, need_w);
  by_dtype(in.x, "tensor_product_grad", [&](auto t) {
    using T = decltype(t);
    const auto data = [](Tensor& tensor, bool need) { return need ? tensor.mutable_data_ptr<T>() : nullptr; };
    tensor_product_grad<T>(in.problem, in.operands<T>(), cotangent.const_data_ptr<T>(),
                           {data(dx, need_x), data(dy, need_y), data(dw, need_w)}, threads());
  });
  return {dx, dy, dw};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("tensor_product", TORCH_BOX(&nf::tensor_product_cpu));
  lib.impl("tensor_product_grad", TORCH_BOX(&nf::tensor_product_grad_cpu));
}
