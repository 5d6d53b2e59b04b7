// Convolution over a graph and its derivatives on the GPU, on plain pointers into its memory.
#pragma once

#include <string>

#include "cuda/conv/kernels.h"
#include "problems/conv.h"

namespace nf::cuda {

// Both ways to walk the edges: those that arrive at a node, and those that leave it.
struct ConvGraph {
  int64_t edges;
  Neighbours by_receiver, by_sender;
};

// Why no group holds the paths of the problem; empty where they do.
std::string conv_why_not(const ConvProblem&);

// out [nodes, dim_out]: conv at the point, or with a tangent its derivative in that direction. `stream` is a cudaStream_t.
// Returns a cudaError_t as an int.
template <class T>
int conv(const ConvGraph&, const ConvProblem&, const Inputs<T>&, T* out, void* stream);

// The gradients of Σ g·conv for g [nodes, dim_out], or with a tangent their derivative in that direction; with a table
// to.w [edges, kTableRows] is that of its coefficients.
template <class T>
int conv_gradient(const ConvGraph&, const ConvProblem&, const Inputs<T>&, const Rows<T>& to, void* stream);

}  // namespace nf::cuda
