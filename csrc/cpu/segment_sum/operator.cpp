// segment_sum: from torch tensors to the kernel.
#include <torch/csrc/stable/library.h>

#include "cpu/segment_sum/segment_sum.h"
#include "tensors.h"

namespace nf {
namespace {

Tensor segment_sum_cpu(Tensor m_, Tensor ptr_, Tensor order_, Tensor) {
  const Tensor m = as_contiguous(m_), ptr = as_contiguous(ptr_),
               order = as_contiguous(order_);
  check_index(order, m.size(0), "segment_sum: receiver_order");
  check_index(ptr, ptr.numel(), "segment_sum: receiver_ptr");
  check_range(order, m.size(0), "segment_sum: receiver_order");
  check_segments(ptr, m.size(0), "segment_sum: receiver_ptr");
  const int64_t nodes = ptr.numel() - 1, dim = m.size(1);
  Tensor out = new_tensor(m, {nodes, dim});
  by_dtype(m, "segment_sum", [&](auto t) {
    using T = decltype(t);
    const T* from = m.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    const int64_t *starts = ptr.const_data_ptr<int64_t>(), *edges = order.const_data_ptr<int64_t>();
    parallel(nodes, 16, [&](int64_t begin, int64_t end) { segment_sum(from, starts, edges, to, dim, begin, end); });
  });
  return out;
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) { lib.impl("segment_sum", TORCH_BOX(&nf::segment_sum_cpu)); }
