// contract_attributes, mix_by_row and their gradients as torch operators.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "cpu/tensor_product/product.h"
#include "tensors.h"

namespace nf {
namespace {

const ProductProblem& with_scalar_attributes(const std::string& paths) {
  const ProductProblem& problem = ProductProblem::of(paths);
  STD_TORCH_CHECK(problem.has_scalar_attributes(), "attributes: every path must be 'uvw' and y hold scalars alone");
  return problem;
}

Tensor checked(const Tensor& tensor, int64_t rows, int64_t columns, const Tensor& like, const char* name) {
  check_rows(tensor, rows, like.scalar_type(), name);
  STD_TORCH_CHECK(tensor.size(1) == columns, name, " must have ", columns, " columns for these paths");
  return as_contiguous(tensor);
}

// A gradient's room; of no rows where it is not wanted.
Tensor room(const Tensor& like, bool wanted) {
  std::vector<int64_t> sizes(like.sizes().begin(), like.sizes().end());
  if (!wanted) sizes[0] = 0;
  return new_tensor(like, sizes);
}

template <class T>
T* data(Tensor& tensor, bool wanted) {
  return wanted ? tensor.mutable_data_ptr<T>() : nullptr;
}

struct Contraction {
  const ProductProblem& problem;
  Tensor table, w;
  int64_t rows;

  Contraction(const Tensor& table_, const Tensor& w_, const std::string& paths)
      : problem(with_scalar_attributes(paths)),
        table(checked(table_, table_.size(0), problem.dim_y, table_, "contract_attributes: table")),
        w(as_contiguous(w_)), rows(table.size(0)) {
    STD_TORCH_CHECK(w.is_cpu() && w.dim() == 1 && w.numel() == problem.dim_w && w.scalar_type() == table.scalar_type(),
                    "contract_attributes: w must be a CPU tensor [", problem.dim_w, "] of the dtype of table");
  }
};

Tensor contract_attributes_cpu(Tensor table, Tensor w, std::string paths) {
  const Contraction in(table, w, paths);
  Tensor out = new_tensor(in.table, {in.rows, contracted_weights(in.problem)});
  by_dtype(in.table, "contract_attributes", [&](auto t) {
    using T = decltype(t);
    contract_attributes<T>(in.problem, in.rows, in.table.const_data_ptr<T>(), in.w.const_data_ptr<T>(),
                           out.mutable_data_ptr<T>(), threads());
  });
  return out;
}

std::tuple<Tensor, Tensor> contract_attributes_gradient_cpu(Tensor table, Tensor w, Tensor g_, std::string paths,
                                                            bool want_table, bool want_w) {
  const Contraction in(table, w, paths);
  const Tensor g = checked(g_, in.rows, contracted_weights(in.problem), in.table, "contract_attributes: g");
  Tensor to_table = room(in.table, want_table), to_w = room(in.w, want_w);
  by_dtype(in.table, "contract_attributes_gradient", [&](auto t) {
    using T = decltype(t);
    contract_attributes_gradient<T>(in.problem, in.rows, in.table.const_data_ptr<T>(), in.w.const_data_ptr<T>(),
                                    g.const_data_ptr<T>(), data<T>(to_table, want_table), data<T>(to_w, want_w),
                                    threads());
  });
  return {to_table, to_w};
}

struct Mixing {
  const ProductProblem& problem;
  Tensor x, w, row;

  Mixing(const Tensor& x_, const Tensor& w_, const Tensor& row_, const std::string& paths)
      : problem(with_scalar_attributes(paths)), x(checked(x_, x_.size(0), problem.dim_x, x_, "mix_by_row: x")),
        w(checked(w_, w_.size(0), contracted_weights(problem), x, "mix_by_row: w")), row(as_contiguous(row_)) {
    check_index(row, x.size(0), "mix_by_row: row");
    STD_TORCH_CHECK(row.is_cpu(), "mix_by_row: row must be on the CPU");
    check_range(row, w.size(0), "mix_by_row: row");
  }

  template <class T>
  MixByRowOperands<T> operands() const {
    return {x.size(0), w.size(0), x.const_data_ptr<T>(), w.const_data_ptr<T>(), row.const_data_ptr<int64_t>()};
  }
};

Tensor mix_by_row_cpu(Tensor x, Tensor w, Tensor row, std::string paths) {
  const Mixing in(x, w, row, paths);
  Tensor out = new_tensor(in.x, {in.x.size(0), in.problem.dim_out});
  by_dtype(in.x, "mix_by_row", [&](auto t) {
    using T = decltype(t);
    mix_by_row<T>(in.problem, in.operands<T>(), out.mutable_data_ptr<T>(), threads());
  });
  return out;
}

std::tuple<Tensor, Tensor> mix_by_row_gradient_cpu(Tensor x, Tensor w, Tensor g_, Tensor row, std::string paths,
                                                   bool want_x, bool want_w) {
  const Mixing in(x, w, row, paths);
  const Tensor g = checked(g_, in.x.size(0), in.problem.dim_out, in.x, "mix_by_row: g");
  Tensor to_x = room(in.x, want_x), to_w = room(in.w, want_w);
  by_dtype(in.x, "mix_by_row_gradient", [&](auto t) {
    using T = decltype(t);
    mix_by_row_gradient<T>(in.problem, in.operands<T>(), g.const_data_ptr<T>(), data<T>(to_x, want_x),
                           data<T>(to_w, want_w), threads());
  });
  return {to_x, to_w};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("contract_attributes", TORCH_BOX(&nf::contract_attributes_cpu));
  lib.impl("contract_attributes_gradient", TORCH_BOX(&nf::contract_attributes_gradient_cpu));
  lib.impl("mix_by_row", TORCH_BOX(&nf::mix_by_row_cpu));
  lib.impl("mix_by_row_gradient", TORCH_BOX(&nf::mix_by_row_gradient_cpu));
}
