// conv: from torch tensors to the kernels.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <tuple>

#include "cpu/conv/conv.h"
#include "tangents.h"

namespace nf {
namespace {

// Shapes, dtypes and indices of a call, checked; contiguous copies where the caller's tensors are not.
struct ConvInputs {
  static constexpr const char* kTangents[] = {"conv: tangent of x", "conv: tangent of y", "conv: tangent of w"};
  const ConvProblem& problem;
  Tensor x, y, w, receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order;
  ConvGraph graph;

  ConvInputs(const Tensor& x_, const Tensor& y_, const Tensor& w_, const Tensor& receiver_, const Tensor& sender_,
             const Tensor& receiver_ptr_, const Tensor& receiver_order_, const Tensor& sender_ptr_,
             const Tensor& sender_order_, const std::string& paths)
      : problem(ConvProblem::of(paths)), x(as_contiguous(x_)), y(as_contiguous(y_)),
        w(as_contiguous(w_)), receiver(as_contiguous(receiver_)),
        sender(as_contiguous(sender_)), receiver_ptr(as_contiguous(receiver_ptr_)),
        receiver_order(as_contiguous(receiver_order_)), sender_ptr(as_contiguous(sender_ptr_)),
        sender_order(as_contiguous(sender_order_)) {
    const int64_t edges = sender.numel();
    graph.edges = edges;
    graph.receiver = checked_ends(receiver, receiver_ptr.numel() - 1, edges, "conv: receiver");
    graph.sender = checked_ends(sender, sender_ptr.numel() - 1, edges, "conv: sender");
    graph.by_receiver = checked_walk(receiver_ptr, receiver_order, edges, "conv: receiver_ptr", "conv: receiver_order");
    graph.by_sender = checked_walk(sender_ptr, sender_order, edges, "conv: sender_ptr", "conv: sender_order");
    check_matrix(x, graph.by_sender.nodes, problem.dim_x, "conv: x");
    check_matrix(y, edges, problem.dim_y, "conv: y");
    check_matrix(w, edges, problem.dim_w, "conv: w");
  }

  void check_matrix(const Tensor& tensor, int64_t rows, int64_t columns, const char* name) const {
    check_rows(tensor, rows, x.scalar_type(), name);
    STD_TORCH_CHECK(tensor.size(1) == columns, name, " must have ", columns, " columns for these paths");
  }

  static const int64_t* checked_ends(const Tensor& ends, int64_t nodes, int64_t edges, const char* name) {
    check_index(ends, edges, name);
    check_range(ends, nodes, name);
    return ends.const_data_ptr<int64_t>();
  }

  static Walk checked_walk(const Tensor& ptr, const Tensor& order, int64_t edges, const char* ptr_name,
                           const char* order_name) {
    check_index(ptr, ptr.numel(), ptr_name);
    check_index(order, edges, order_name);
    check_range(order, edges, order_name);
    check_segments(ptr, edges, ptr_name);
    return {ptr.numel() - 1, ptr.const_data_ptr<int64_t>(), order.const_data_ptr<int64_t>()};
  }

  template <class T>
  ConvPoint<T> point() const {
    return {x.const_data_ptr<T>(), y.const_data_ptr<T>(), w.const_data_ptr<T>()};
  }
};

Tensor conv_tangent_cpu(Tensor x, Tensor y, Tensor w, std::optional<Tensor> dx, std::optional<Tensor> dy,
                        std::optional<Tensor> dw, Tensor receiver, Tensor sender, Tensor receiver_ptr,
                        Tensor receiver_order, Tensor sender_ptr, Tensor sender_order, std::string paths) {
  const ConvInputs in(x, y, w, receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order, paths);
  const Tangents along(in, dx, dy, dw);
  Tensor out = new_tensor(in.x, {in.graph.by_receiver.nodes, in.problem.dim_out});
  by_dtype(in.x, "conv", [&](auto t) {
    using T = decltype(t);
    conv<T>(in.graph, in.problem, in.point<T>(), along.direction<ConvTangent<T>, T>(), out.mutable_data_ptr<T>(), threads());
  });
  return out;
}

Tensor conv_cpu(Tensor x, Tensor y, Tensor w, Tensor receiver, Tensor sender, Tensor receiver_ptr, Tensor receiver_order,
                Tensor sender_ptr, Tensor sender_order, std::string paths) {
  return conv_tangent_cpu(x, y, w, std::nullopt, std::nullopt, std::nullopt, receiver, sender, receiver_ptr,
                          receiver_order, sender_ptr, sender_order, paths);
}

// What is not wanted comes back empty.
std::tuple<Tensor, Tensor, Tensor> conv_gradient_tangent_cpu(
    Tensor x, Tensor y, Tensor w, Tensor g, std::optional<Tensor> dx, std::optional<Tensor> dy, std::optional<Tensor> dw,
    Tensor receiver, Tensor sender, Tensor receiver_ptr, Tensor receiver_order, Tensor sender_ptr, Tensor sender_order,
    std::string paths, bool want_x, bool want_y, bool want_w) {
  const ConvInputs in(x, y, w, receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order, paths);
  const Tangents along(in, dx, dy, dw);
  const Tensor cotangent = as_contiguous(g);
  in.check_matrix(cotangent, in.graph.by_receiver.nodes, in.problem.dim_out, "conv: g");
  const auto like = [](const Tensor& tensor, bool wanted) {
    return new_tensor(tensor, {wanted ? tensor.size(0) : 0, tensor.size(1)});
  };
  Tensor to_x = like(in.x, want_x), to_y = like(in.y, want_y), to_w = like(in.w, want_w);
  by_dtype(in.x, "conv_gradient", [&](auto t) {
    using T = decltype(t);
    const ConvGradient<T> to{want_x ? to_x.mutable_data_ptr<T>() : nullptr, want_y ? to_y.mutable_data_ptr<T>() : nullptr,
                             want_w ? to_w.mutable_data_ptr<T>() : nullptr};
    conv_gradient<T>(in.graph, in.problem, in.point<T>(), along.direction<ConvTangent<T>, T>(), cotangent.const_data_ptr<T>(), to,
                     threads());
  });
  return {to_x, to_y, to_w};
}

std::tuple<Tensor, Tensor, Tensor> conv_gradient_cpu(Tensor x, Tensor y, Tensor w, Tensor g, Tensor receiver,
                                                     Tensor sender, Tensor receiver_ptr, Tensor receiver_order,
                                                     Tensor sender_ptr, Tensor sender_order, std::string paths,
                                                     bool want_x, bool want_y, bool want_w) {
  return conv_gradient_tangent_cpu(x, y, w, g, std::nullopt, std::nullopt, std::nullopt, receiver, sender, receiver_ptr,
                                   receiver_order, sender_ptr, sender_order, paths, want_x, want_y, want_w);
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("conv", TORCH_BOX(&nf::conv_cpu));
  lib.impl("conv_tangent", TORCH_BOX(&nf::conv_tangent_cpu));
  lib.impl("conv_gradient", TORCH_BOX(&nf::conv_gradient_cpu));
  lib.impl("conv_gradient_tangent", TORCH_BOX(&nf::conv_gradient_tangent_cpu));
}
