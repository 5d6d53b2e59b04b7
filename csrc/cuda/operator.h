// What the layers between torch tensors and the CUDA kernels share. Built for tests/simt (NF_SIMT) they serve the CPU.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <optional>

#include "tensors.h"

#if defined(NF_SIMT)
#define NF_CUDA_KEY CPU
#else
#define NF_CUDA_KEY CUDA
// Only CUDA builds of torch define it; weak, so that the library loads in CPU builds too.
#pragma weak aoti_torch_get_current_cuda_stream
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);
#endif

namespace nf::cuda {

// One call of an operator: its first tensor's device is made current, and `stream` is torch's there.
class Call {
 public:
  Call(const char* op, const Tensor& first) : stream(nullptr), op_(op), device_(first.get_device_index()) {
#if !defined(NF_SIMT)
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, op, ": this torch was built without CUDA");
    guard_.emplace(device_);
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream) == 0, op, ": no CUDA stream");
#endif
  }

  // Checks that the tensor is on the call's device.
  void check_device(const Tensor& tensor, const char* name) const {
#if defined(NF_SIMT)
    const bool here = tensor.is_cpu();
#else
    const bool here = tensor.is_cuda() && tensor.get_device_index() == device_;
#endif
    STD_TORCH_CHECK(here, op_, ": ", name, " must be on the device of the other tensors");
  }

  // `tensor`, contiguous; checks that it is [..., dim] with the leading dimensions of `like`, on the call's device.
  Tensor rows(const Tensor& tensor, const Tensor& like, int64_t dim, ScalarType dtype, const char* name) const {
    check_device(tensor, name);
    STD_TORCH_CHECK(are_rows(tensor, like, dim) && tensor.scalar_type() == dtype, op_, ": ", name,
                    " must be a tensor [..., ", dim, "] of the shape and dtype of the others");
    return as_contiguous(tensor);
  }

  // Throws where a kernel could not be launched (the cudaError_t is not 0).
  void launched(int error) const { STD_TORCH_CHECK(error == 0, op_, ": CUDA error ", error); }

  void* stream;

 private:
  const char* op_;
  torch::stable::accelerator::DeviceIndex device_;
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
};

}  // namespace nf::cuda
