// What the layers between torch tensors and the kernels' plain pointers share.
// LibTorch's stable ABI only: one binary serves torch 2.10 and later, any Python, CPU or CUDA builds of torch.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "cpu/parallel.h"

namespace nf {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void parallel(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  torch::stable::parallel_for(0, n, grain, body);
}

inline Threads threads() { return {std::max(1, int(torch::stable::get_num_threads())), parallel}; }

// torch::stable::contiguous and new_empty go through the dispatcher, at a microsecond each: as much as a small kernel.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline Tensor new_tensor(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  int32_t device = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle result;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(),
                                                         int32_t(dtype), device, like.get_device_index(), &result));
#if defined(NF_SIMT)
  Tensor poisoned(result);  // with NaN, so that what a kernel leaves out shows
  std::memset(poisoned.mutable_data_ptr(), 0xff, size_t(poisoned.numel()) * poisoned.element_size());
  return poisoned;
#else
  return Tensor(result);
#endif
}

inline Tensor new_tensor(const Tensor& like, const std::vector<int64_t>& sizes) {
  return new_tensor(like, sizes, like.scalar_type());
}

// --- [..., dim]: rows with any leading dimensions ---

// Whether `tensor` is [..., dim] with the leading dimensions of `like`.
inline bool are_rows(const Tensor& tensor, const Tensor& like, int64_t dim) {
  bool same = tensor.dim() == like.dim() && tensor.dim() > 0 && tensor.size(tensor.dim() - 1) == dim;
  for (int64_t i = 0; same && i + 1 < like.dim(); ++i) same = tensor.size(i) == like.size(i);
  return same;
}

// A new tensor [..., dim] with the leading dimensions of `like`.
inline Tensor new_rows(const Tensor& like, int64_t dim, ScalarType dtype) {
  std::vector<int64_t> sizes(like.sizes().begin(), like.sizes().end());
  sizes.back() = dim;
  return new_tensor(like, sizes, dtype);
}

inline Tensor new_rows(const Tensor& like, int64_t dim) { return new_rows(like, dim, like.scalar_type()); }

// --- checks ---

template <class F>
auto by_dtype(const Tensor& tensor, const char* op, F&& f) {
  if (tensor.scalar_type() == ScalarType::Float) return f(float{});
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Double, op, ": tensors must be float32 or float64");
  return f(double{});
}

inline void check_rows(const Tensor& tensor, int64_t rows, ScalarType dtype, const char* name) {
  STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == rows && tensor.scalar_type() == dtype && tensor.is_cpu(), name,
                  " must be a CPU tensor of ", rows, " rows and the dtype of the others");
}

inline void check_index(const Tensor& tensor, int64_t length, const char* name) {
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == length && tensor.scalar_type() == ScalarType::Long, name,
                  " must be an int64 tensor [", length, "]");
}

inline void check_range(const Tensor& index, int64_t end, const char* name) {
  const int64_t* values = index.const_data_ptr<int64_t>();
  const int64_t count = index.numel();
  uint64_t signs = 0;  // negative where a value or end - 1 - value is: no comparison, so that any processor takes vectors
  for (int64_t i = 0; i < count; ++i) signs |= uint64_t(values[i]) | (uint64_t(end) - 1 - uint64_t(values[i]));
  STD_TORCH_CHECK(int64_t(signs) >= 0, name, " names something outside 0 … ", end - 1);
}

// Segments follow each other and hold every edge: one left out would leave its gradient unwritten.
inline void check_segments(const Tensor& ptr, int64_t edges, const char* name) {
  STD_TORCH_CHECK(ptr.numel() >= 1, name, " must have one entry more than there are nodes");
  const int64_t* values = ptr.const_data_ptr<int64_t>();
  bool rising = values[0] == 0 && values[ptr.numel() - 1] == edges;
  for (int64_t i = 1; i < ptr.numel(); ++i) rising &= values[i - 1] <= values[i];
  STD_TORCH_CHECK(rising, name, " must rise from 0 to the number of edges; does an edge name a node that is not there?");
}

}  // namespace nf
