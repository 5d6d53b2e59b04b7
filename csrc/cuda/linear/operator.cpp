// linear on the GPU: from torch tensors to the kernel.
#include <string>
#include <vector>

#include "cuda/linear/linear.h"
#include "cuda/operator.h"

namespace nf::cuda {
namespace {

// Products are as exact as the dtype; what more `precision` allows is for tensor cores.
Tensor linear_op(Tensor x_, Tensor w_, std::vector<int64_t> counts, int64_t width, std::string maps, std::string) {
  const LinearProblem& problem = LinearProblem::of(maps);
  const Call call("linear", x_);
  STD_TORCH_CHECK(x_.dim() == 2 && w_.dim() == 2 && width == problem.dim_out && w_.size(1) >= problem.weights &&
                      w_.size(0) >= int64_t(counts.size()) && w_.scalar_type() == x_.scalar_type(),
                  "linear: x must be [rows, ", problem.dim_in, "] and w [", counts.size(), ", ", problem.weights,
                  " or more] of its dtype, the result ", problem.dim_out, " wide");
  call.check_device(w_, "w");
  const Tensor x = call.rows(x_, x_, problem.dim_in, x_.scalar_type(), "x"), w = as_contiguous(w_);
  int64_t rows = 0;
  for (const int64_t count : counts) {
    STD_TORCH_CHECK(count >= 0, "linear: counts must not be negative");
    rows += count;
  }
  STD_TORCH_CHECK(rows == x.size(0), "linear: counts must add up to the rows of x, ", x.size(0));
  Tensor out = new_tensor(x, {rows, width});
  by_dtype(x, "linear", [&](auto t) {
    using T = decltype(t);
    call.launched(linear<T>(problem, x.const_data_ptr<T>(), w.const_data_ptr<T>(), w.size(1), counts,
                            out.mutable_data_ptr<T>(), call.stream));
  });
  return out;
}

}  // namespace
}  // namespace nf::cuda

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, NF_CUDA_KEY, lib) {
  lib.impl("linear", TORCH_BOX(&nf::cuda::linear_op));
}
