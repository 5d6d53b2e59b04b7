// segment_sum on the GPU: from torch tensors to the kernel.
#include "cuda/operator.h"
#include "cuda/segment_sum/segment_sum.h"

namespace nf::cuda {
namespace {

Tensor segment_sum_op(Tensor m_, Tensor ptr_, Tensor order_, Tensor) {
  const Call call("segment_sum", m_);
  const Tensor m = as_contiguous(m_), ptr = as_contiguous(ptr_), order = as_contiguous(order_);
  check_index(order, m.size(0), "segment_sum: receiver_order");
  check_index(ptr, ptr.numel(), "segment_sum: receiver_ptr");
  call.check_device(order, "receiver_order");
  call.check_device(ptr, "receiver_ptr");
  const int64_t nodes = ptr.numel() - 1, dim = m.size(1);
  Tensor out = new_tensor(m, {nodes, dim});
  by_dtype(m, "segment_sum", [&](auto t) {
    using T = decltype(t);
    call.launched(segment_sum<T>(m.const_data_ptr<T>(), ptr.const_data_ptr<int64_t>(), order.const_data_ptr<int64_t>(),
                                 out.mutable_data_ptr<T>(), nodes, dim, call.stream));
  });
  return out;
}

}  // namespace
}  // namespace nf::cuda

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, NF_CUDA_KEY, lib) {
  lib.impl("segment_sum", TORCH_BOX(&nf::cuda::segment_sum_op));
}
