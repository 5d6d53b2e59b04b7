// What the driver (conv.cpp) and the per-instruction-set kernels (kernels.cpp) agree on.
//
// Inside the kernels rows are channel-last: a segment of `mul` channels of degree l is [2l + 1][padded(mul)], zero in
// the padding, so that channels run along vector lanes. A tile is up to `lanes` edges of one receiver; their
// harmonics stand transposed, y[component][edge], so that the Clebsch-Gordan contraction runs along edges.
#pragma once

#include <cstdint>

#include "cg_tables.h"
#include "cpu/isa.h"

namespace nf {

// One path; offsets into channel-last rows (x, out), into y's components and into rows of w.
struct PathArgs {
  int mul, x, y, w, out;
  double coefficient;
};

template <class T>
struct Tile {
  int edges;
  const T* y;         // [dim_y][lanes]
  const T* const* x;  // senders' rows, channel-last
  const T* const* w;  // weight rows
  const T* const* next_w;  // those of the tile after this one, for the kernels to prefetch as they go
};

template <class T>
struct GatherTile : Tile<T> {
  T* out;  // the receiver's sums, channel-last
};

template <class T>
struct EdgeTile : Tile<T> {
  const T* g;    // the receiver's cotangents, channel-last
  T* const* dw;  // rows of the gradient of w
  T* dy;         // [edge][dim_y][lanes], partial sums over channels
  int dim_y;
};

template <class T>
struct ConvKernels {
  using Gather = void (*)(const GatherTile<T>&, const PathArgs&);
  using Edge = void (*)(const EdgeTile<T>&, const PathArgs&);
  using Relayout = void (*)(const T* from, T* to, int n, int mul, int padded);

  int lanes;
  Gather gather[kMaxL + 1][kMaxL + 1][kMaxL + 1];
  Edge edge[kMaxL + 1][kMaxL + 1][kMaxL + 1];
  Relayout channels_last;                                  // [mul][n] -> [n][padded], zeros in the padding
  Relayout channels_first;                                 // and back
  void (*sum_dy)(const T* partial, T* dy, int components);  // sum over lanes
};

NF_KERNEL_TABLE(ConvKernels, conv_kernels)

}  // namespace nf
