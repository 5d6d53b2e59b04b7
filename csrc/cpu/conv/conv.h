// Convolution over a graph and its gradient with respect to the edges, on plain pointers.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace nf {

// parallel_for(n, grain, body): body(begin, end) over disjoint ranges, on the caller's thread pool.
using ParallelFor = std::function<void(int64_t, int64_t, const std::function<void(int64_t, int64_t)>&)>;

struct ConvPath {
  int l1, l2, l3, mul, x, y, w, out;
  double coefficient;
};

// Edges of node i are order[ptr[i]] … order[ptr[i + 1] - 1]; each comes from node `from[edge]`.
struct ConvGraph {
  int64_t nodes, edges;
  const int64_t *from, *ptr, *order;
};

struct ConvShape {
  int64_t nodes_x;
  int dim_x, dim_y, dim_w, dim_out;
};

// Every path inside its rows, none across another, degrees within the tables; throws std::runtime_error otherwise.
void check_paths(const std::vector<ConvPath>& paths, const ConvShape& shape);

// out [nodes, dim_out] from x [nodes_x, dim_x], y [edges, dim_y], w [edges, dim_w]
template <class T>
void conv(const ConvGraph&, const ConvShape&, const std::vector<ConvPath>&, const T* x, const T* y, const T* w, T* out,
          const ParallelFor&);

// dy [edges, dim_y], dw [edges, dim_w] from x, g [nodes, dim_out], y, w
template <class T>
void conv_edge_grad(const ConvGraph&, const ConvShape&, const std::vector<ConvPath>&, const T* x, const T* g,
                    const T* y, const T* w, T* dy, T* dw, const ParallelFor&);

}  // namespace nf
