// What the planner (conv.cpp) and the kernels of each group (fill.cu) agree on.
#pragma once

#include <cstdint>

namespace nf::cuda {

inline constexpr int kMostPaths = 12;  // of a group
inline constexpr int kMostDegree = 4;  // of its harmonics

// One path; offsets into rows of w and out.
template <class T>
struct PathArgs {
  int w, w_stride;  // of channel u: w + u·w_stride; stride 0: the factor w is 1
  int out;          // −1: the problem lacks this path
  T coefficient;
};

// The part of a problem that one launch computes: an irrep of x, `mul` channels of it from column x on.
template <class T>
struct GroupArgs {
  int mul, x;
  int y[kMostDegree + 1];  // column of the harmonics of each degree; −1: no path takes them
  PathArgs<T> path[kMostPaths];
};

// Widths of rows, and whether a result is added to what is there.
struct Widths {
  int x, y, w, out;
  bool add_x, add_out;
};

// Edges of node i: order[ptr[i]] … order[ptr[i + 1] − 1]; other[e] is the node at their other end.
struct Neighbours {
  int64_t nodes;
  const int64_t *ptr, *order, *other;
};

// Rows of x, y and w, of a tangent where null stands for zero, or of gradients where null is not wanted.
template <class T>
struct Rows {
  T *x, *y, *w;
};

inline constexpr int kTableRows = 6;  // of an interval of a table

// In place of rows of w, these are formed from a table [rows, width of w]: of edge e
// Σ_q coefficients[e, q] · table[first[e] + q]. Null: rows of w are given.
template <class T>
struct Formed {
  const T *table, *coefficients;
  const int64_t* first;
};

// What a launch reads: the point, the tangent to differentiate along (all null: none; not with a table), cotangents of out.
template <class T>
struct Inputs {
  Rows<const T> at, along;
  Formed<T> formed;
  const T* g;
};

// Each returns a cudaError_t as an int. With a tangent it is the derivative along it; with a table the gradient has that
// of the coefficients in place of that of w.
template <class T>
struct ConvKernels {
  int l1;
  int (*index)(int l2, int l3);  // of a path among the group's; −1: not one of them
  int paths;
  int (*gather)(const Neighbours&, const GroupArgs<T>&, const Widths&, const Inputs<T>&, T* out, void* stream);
  int (*gradient)(const Neighbours&, const GroupArgs<T>&, const Widths&, const Inputs<T>&, const Rows<T>& to, void* stream);
};

// Of the group numbered i, defined by fill.cu.
template <class T, int i>
ConvKernels<T> conv_kernels();

}  // namespace nf::cuda
