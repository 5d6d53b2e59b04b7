#include "cpu/segment_sum/segment_sum.h"

#include "graphs.h"

namespace nf::check {

template <class T>
Results segments(const ParallelFor& parallel) {
  Results results;
  for (const EdgeList& edges : awkward_graphs())
    for (int64_t dim : {0, 1, 13, 64}) {
      const Visits visits(edges.receiver, edges.nodes);
      const Exact<T> m = random<T>(int64_t(edges.receiver.size()) * dim, 1), out = unwritten<T>(edges.nodes * dim);
      parallel(edges.nodes, 1, [&](int64_t begin, int64_t end) {
        segment_sum(m.data(), visits.ptr.data(), visits.order.data(), out.data(), dim, begin, end);
      });
      results.add(out);
    }
  return results;
}

template Results segments<float>(const ParallelFor&);
template Results segments<double>(const ParallelFor&);

}  // namespace nf::check
