// hermite on the GPU: from torch tensors to the kernel.
#include <tuple>

#include "cuda/hermite/hermite.h"
#include "cuda/operator.h"

namespace nf::cuda {
namespace {

Tensor doubles(const Call& call, const Tensor& tensor, const char* name) {
  call.check_device(tensor, name);
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.scalar_type() == ScalarType::Double, "hermite: ", name,
                  " must be float64 and have one dimension");
  return as_contiguous(tensor);
}

std::tuple<Tensor, Tensor, Tensor> hermite_op(Tensor x_, Tensor knots_, bool single) {
  const Call call("hermite", x_);
  const Tensor x = doubles(call, x_, "x"), knots = doubles(call, knots_, "knots");
  STD_TORCH_CHECK(knots.numel() >= 2, "hermite: there must be two knots at least");
  const int64_t edges = x.numel();
  const ScalarType dtype = single ? ScalarType::Float : ScalarType::Double;
  Tensor first = new_tensor(x, {edges}, ScalarType::Long), values = new_tensor(x, {edges, 6}, dtype),
         slopes = new_tensor(x, {edges, 6}, dtype);
  by_dtype(values, "hermite", [&](auto t) {
    using T = decltype(t);
    call.launched(hermite<T>(x.const_data_ptr<double>(), knots.const_data_ptr<double>(), knots.numel(),
                             first.mutable_data_ptr<int64_t>(), values.mutable_data_ptr<T>(),
                             slopes.mutable_data_ptr<T>(), edges, call.stream));
  });
  return {first, values, slopes};
}

}  // namespace
}  // namespace nf::cuda

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, NF_CUDA_KEY, lib) {
  lib.impl("hermite", TORCH_BOX(&nf::cuda::hermite_op));
}
