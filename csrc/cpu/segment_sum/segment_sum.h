// Sum of edge rows over receivers, in edge order.
#pragma once

#include <algorithm>
#include <cstdint>

namespace nf {

// Nodes begin … end − 1 of out [nodes, dim] = sums of m [edges, dim] over order[ptr[i]] … order[ptr[i + 1] − 1].
template <class T>
void segment_sum(const T* m, const int64_t* ptr, const int64_t* order, T* out, int64_t dim, int64_t begin,
                 int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    T* row = out + i * dim;
    std::fill_n(row, dim, T(0));
    for (int64_t k = ptr[i]; k < ptr[i + 1]; ++k) {
      const T* edge = m + order[k] * dim;
      for (int64_t c = 0; c < dim; ++c) row[c] += edge[c];
    }
  }
}

}  // namespace nf
