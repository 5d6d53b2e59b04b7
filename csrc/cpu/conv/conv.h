// Convolution over a graph and its derivatives, on plain pointers.
#pragma once

#include <cstdint>

#include "problems/conv.h"
#include "cpu/parallel.h"

namespace nf {

// The edges of one end of the graph: node i has order[ptr[i]] … order[ptr[i + 1] - 1].
struct Walk {
  int64_t nodes;
  const int64_t *ptr, *order;
};

struct ConvGraph {
  int64_t edges;
  const int64_t *receiver, *sender;  // the two ends of each edge
  Walk by_receiver, by_sender;
};

// What conv is linear in: x [nodes, dim_x], y [edges, dim_y], w [edges, dim_w].
template <class T>
struct ConvPoint {
  const T *x, *y, *w;
};

// A direction to differentiate in; what is null stays fixed.
template <class T>
struct ConvTangent : ConvPoint<T> {
  bool none() const { return !this->x && !this->y && !this->w; }
};

// Where the gradients go, shapes as in ConvPoint; null: not wanted. (Those of y and w share most of their work.)
template <class T>
struct ConvGradient {
  T *x, *y, *w;
};

// out [nodes, dim_out]: conv at the point, or with a tangent its derivative in that direction.
template <class T>
void conv(const ConvGraph&, const ConvProblem&, const ConvPoint<T>&, const ConvTangent<T>&, T* out, const Threads&);

// The gradient of Σ g·conv for g [nodes, dim_out], or with a tangent the gradient's derivative in that direction.
template <class T>
void conv_gradient(const ConvGraph&, const ConvProblem&, const ConvPoint<T>&, const ConvTangent<T>&, const T* g,
                   const ConvGradient<T>&, const Threads&);

}  // namespace nf
