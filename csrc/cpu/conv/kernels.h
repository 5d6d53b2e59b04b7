// What the driver (conv.cpp) and the kernels of each instruction set (kernels.cpp, fill.cpp) agree on.
//
// Inside the kernels rows are channel-last: a segment of `mul` channels of degree l is [2l + 1][stride], the stride at
// least padded(mul) and the padding zero, so that channels run along vector lanes. A tile is up to `lanes` edges of one node; their
// harmonics stand transposed, y[component][edge], so that the Clebsch-Gordan contraction runs along edges.
#pragma once

#include <cstdint>

#include "cg/coupling.h"
#include "cg_tables.h"
#include "cpu/isa.h"

namespace nf {

inline constexpr int kMaxDegree = 31;  // of any irrep; what coupling() computes

// A Coupling as plain pointers: code of one instruction set must not emit functions of std::vector for all to share.
struct CouplingView {
  int l1, l3, count;
  const Coupling::Entry* entries;  // [count]
  const Coupling::Term* terms;
};

// One path; offsets into channel-last rows (x, out), into y's components and into rows of w.
struct PathArgs {
  int mul, x, y, w, w_stride, out;
  int x_stride, out_stride;  // from one component to the next
  int ahead;           // offset into a row of w of what is to be prefetched while this path is worked on,
  bool ahead_in_next;  // in the rows of the next tile
  double coefficient;
  CouplingView coupling;
};

// The operands of a tile's edges: at the point, and along the tangent.
template <class T>
struct TileRows {
  const T* y;              // [dim_y][lanes]
  const T* const* x;       // senders' rows, channel-last
  const T* const* w;       // weight rows
  const T* const* next_w;  // those of the tile after this one

  const T* const* ahead(const PathArgs& path) const { return path.ahead_in_next ? next_w : w; }
};

template <class T>
struct Tile {
  int edges;
  TileRows<T> at, tangent;  // tangent: for the kernels that take one
  T* scratch;               // for two sets of a path's entries (m1, m3), [entry][lanes]
};

template <class T>
struct GatherTile : Tile<T> {
  T* out;  // the node's sums, channel-last
};

template <class T>
struct GradientTile : Tile<T> {
  const T* const* g;  // receivers' cotangents, channel-last
  T* const* dx;       // the senders' sums, channel-last; null: not wanted
  T* dy;              // [edge][dim_y][lanes], partial sums over channels
  T* const* dw;       // rows of the gradient of w
  int dim_y;
  bool stream_w;  // write dw past the caches: its rows are whole cache lines
};

template <class T>
struct ConvKernels {
  using Gather = void (*)(const GatherTile<T>&, const PathArgs&);
  using Gradient = void (*)(const GradientTile<T>&, const PathArgs&);
  using Collect = void (*)(const T* const* rows, int count, int dim, T* columns);
  using Relayout = void (*)(const T* from, T* to, int n, int mul, int padded);

  // Both kernels of one path; [1]: with a tangent.
  struct OfPath {
    Gather gather[2];
    Gradient gradient[2];
  };

  int lanes;
  OfPath paths[kMaxL + 1][kMaxL + 1][kMaxL + 1];           // for weights side by side
  OfPath any;                                              // for any degrees and strides of weights
  Collect collect;                                         // `count` rows [dim] -> columns [dim][lanes]
  Relayout channels_last;                                  // [mul][n] -> [n][padded], zeros in the padding
  Relayout channels_first;                                 // and back
  void (*sum_dy)(const T* partial, T* dy, int components);  // sum over lanes
  void (*end_stream)();                                    // what was streamed is there for other threads to see

  const OfPath& of(int l1, int l2, int l3, int w_stride) const {
    const bool common = l1 <= kMaxL && l2 <= kMaxL && l3 <= kMaxL && w_stride == 1;
    return common ? paths[l1][l2][l3] : any;
  }
};

NF_KERNEL_TABLE(ConvKernels, conv_kernels)

}  // namespace nf
