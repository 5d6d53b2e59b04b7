// conv on the GPU: from torch tensors to the kernels. What indices a graph holds is not looked at: that would wait for the
// device.
#include <optional>
#include <string>
#include <tuple>

#include "cuda/conv/conv.h"
#include "cuda/operator.h"
#include "tangents.h"

namespace nf::cuda {
namespace {

// The graph of a call, in the order of the operators' arguments.
struct GraphTensors {
  Tensor receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order;
};

// What rows of w are formed from, in their place.
struct TableTensors {
  Tensor table, first;
};

// Shapes, dtypes and devices of a call, checked; contiguous copies where the caller's tensors are not. With a table, w is
// its coefficients [edges, kTableRows].
struct ConvInputs {
  static constexpr const char* kTangents[] = {"tangent of x", "tangent of y", "tangent of w"};
  const ConvProblem& problem;
  const Call call;
  const Tensor x, y, w;
  const GraphTensors tensors;
  const ConvGraph graph;
  std::optional<TableTensors> table;

  ConvInputs(const Tensor& x_, const Tensor& y_, const Tensor& w_, const GraphTensors& graph_, const std::string& paths,
             const std::optional<TableTensors>& table_ = std::nullopt)
      : problem(ConvProblem::of(paths)), call("conv", x_), x(as_contiguous(x_)), y(as_contiguous(y_)),
        w(as_contiguous(w_)), tensors(graph_), graph(checked(tensors)) {
    check_matrix(x, graph.by_sender.nodes, problem.dim_x, "x");
    check_matrix(y, graph.edges, problem.dim_y, "y");
    check_matrix(w, graph.edges, table_ ? kTableRows : problem.dim_w, table_ ? "the coefficients" : "w");
    if (!table_) return;
    checked_index(table_->first, graph.edges, "conv: first");
    check_matrix(table_->table, table_->table.size(0), problem.dim_w, "the table");
    table = {as_contiguous(table_->table), table_->first};
  }

  void check_matrix(const Tensor& tensor, int64_t rows, int64_t columns, const char* name) const {
    call.check_device(tensor, name);
    STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == rows && tensor.scalar_type() == x.scalar_type(), "conv: ",
                    name, " must have ", rows, " rows and the dtype of x");
    STD_TORCH_CHECK(tensor.size(1) == columns, "conv: ", name, " must have ", columns, " columns for these paths");
  }

  const int64_t* checked_index(const Tensor& index, int64_t length, const char* name) const {
    check_index(index, length, name);
    call.check_device(index, name);
    STD_TORCH_CHECK(index.is_contiguous(), name, " must be contiguous");
    return index.const_data_ptr<int64_t>();
  }

  ConvGraph checked(const GraphTensors& g) const {
    const int64_t edges = g.sender.numel();
    const auto walk = [&](const Tensor& ptr, const Tensor& order, const Tensor& other, const char* name) {
      STD_TORCH_CHECK(ptr.numel() >= 1, name, " must have one entry more than there are nodes");
      return Neighbours{ptr.numel() - 1, checked_index(ptr, ptr.numel(), name), checked_index(order, edges, name),
                        checked_index(other, edges, name)};
    };
    return {edges, walk(g.receiver_ptr, g.receiver_order, g.sender, "conv: the receivers' edges"),
            walk(g.sender_ptr, g.sender_order, g.receiver, "conv: the senders' edges")};
  }

  template <class T>
  Rows<const T> point() const {
    return {x.const_data_ptr<T>(), y.const_data_ptr<T>(), table ? nullptr : w.const_data_ptr<T>()};
  }
  template <class T>
  Formed<T> formed() const {
    if (!table) return {nullptr, nullptr, nullptr};
    return {table->table.const_data_ptr<T>(), w.const_data_ptr<T>(), table->first.const_data_ptr<int64_t>()};
  }
};

using ConvTangents = Tangents<ConvInputs>;

Tensor conv_tangent(const ConvInputs& in, const ConvTangents& along) {
  Tensor out = new_tensor(in.x, {in.graph.by_receiver.nodes, in.problem.dim_out});
  by_dtype(in.x, "conv", [&](auto t) {
    using T = decltype(t);
    const Inputs<T> inputs{in.point<T>(), along.direction<Rows<const T>, T>(), in.formed<T>(), nullptr};
    in.call.launched(conv<T>(in.graph, in.problem, inputs, out.mutable_data_ptr<T>(), in.call.stream));
  });
  return out;
}

// What is not wanted comes back empty.
std::tuple<Tensor, Tensor, Tensor> conv_gradient_tangent(const ConvInputs& in, const ConvTangents& along, const Tensor& g,
                                                         bool want_x, bool want_y, bool want_w) {
  in.check_matrix(g, in.graph.by_receiver.nodes, in.problem.dim_out, "g");
  const Tensor cotangent = as_contiguous(g);
  const auto like = [](const Tensor& tensor, bool wanted) {
    return new_tensor(tensor, {wanted ? tensor.size(0) : 0, tensor.size(1)});
  };
  Tensor to_x = like(in.x, want_x), to_y = like(in.y, want_y), to_w = like(in.w, want_w);
  by_dtype(in.x, "conv", [&](auto t) {
    using T = decltype(t);
    const Rows<T> to{want_x ? to_x.mutable_data_ptr<T>() : nullptr, want_y ? to_y.mutable_data_ptr<T>() : nullptr,
                     want_w ? to_w.mutable_data_ptr<T>() : nullptr};
    const Inputs<T> inputs{in.point<T>(), along.direction<Rows<const T>, T>(), in.formed<T>(), cotangent.const_data_ptr<T>()};
    in.call.launched(conv_gradient<T>(in.graph, in.problem, inputs, to, in.call.stream));
  });
  return {to_x, to_y, to_w};
}

// --- as registered ---

Tensor conv_op(Tensor x, Tensor y, Tensor w, Tensor receiver, Tensor sender, Tensor receiver_ptr, Tensor receiver_order,
               Tensor sender_ptr, Tensor sender_order, std::string paths) {
  const ConvInputs in(x, y, w, {receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order}, paths);
  return conv_tangent(in, {in, std::nullopt, std::nullopt, std::nullopt});
}

Tensor conv_tangent_op(Tensor x, Tensor y, Tensor w, std::optional<Tensor> dx, std::optional<Tensor> dy,
                       std::optional<Tensor> dw, Tensor receiver, Tensor sender, Tensor receiver_ptr,
                       Tensor receiver_order, Tensor sender_ptr, Tensor sender_order, std::string paths) {
  const ConvInputs in(x, y, w, {receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order}, paths);
  return conv_tangent(in, {in, dx, dy, dw});
}

std::tuple<Tensor, Tensor, Tensor> conv_gradient_op(Tensor x, Tensor y, Tensor w, Tensor g, Tensor receiver,
                                                    Tensor sender, Tensor receiver_ptr, Tensor receiver_order,
                                                    Tensor sender_ptr, Tensor sender_order, std::string paths,
                                                    bool want_x, bool want_y, bool want_w) {
  const ConvInputs in(x, y, w, {receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order}, paths);
  return conv_gradient_tangent(in, {in, std::nullopt, std::nullopt, std::nullopt}, g, want_x, want_y, want_w);
}

std::tuple<Tensor, Tensor, Tensor> conv_gradient_tangent_op(
    Tensor x, Tensor y, Tensor w, Tensor g, std::optional<Tensor> dx, std::optional<Tensor> dy, std::optional<Tensor> dw,
    Tensor receiver, Tensor sender, Tensor receiver_ptr, Tensor receiver_order, Tensor sender_ptr, Tensor sender_order,
    std::string paths, bool want_x, bool want_y, bool want_w) {
  const ConvInputs in(x, y, w, {receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order}, paths);
  return conv_gradient_tangent(in, {in, dx, dy, dw}, g, want_x, want_y, want_w);
}

Tensor conv_of_table_op(Tensor x, Tensor y, Tensor h, Tensor table, Tensor first, Tensor receiver, Tensor sender,
                        Tensor receiver_ptr, Tensor receiver_order, Tensor sender_ptr, Tensor sender_order,
                        std::string paths) {
  const ConvInputs in(x, y, h, {receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order}, paths,
                      TableTensors{table, first});
  return conv_tangent(in, {in, std::nullopt, std::nullopt, std::nullopt});
}

std::tuple<Tensor, Tensor, Tensor> conv_of_table_gradient_op(Tensor x, Tensor y, Tensor h, Tensor table, Tensor first,
                                                             Tensor g, Tensor receiver, Tensor sender,
                                                             Tensor receiver_ptr, Tensor receiver_order,
                                                             Tensor sender_ptr, Tensor sender_order, std::string paths,
                                                             bool want_x, bool want_y, bool want_h) {
  const ConvInputs in(x, y, h, {receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order}, paths,
                      TableTensors{table, first});
  return conv_gradient_tangent(in, {in, std::nullopt, std::nullopt, std::nullopt}, g, want_x, want_y, want_h);
}

std::string why_not(std::string paths) { return conv_why_not(ConvProblem::of(paths)); }

}  // namespace
}  // namespace nf::cuda

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, NF_CUDA_KEY, lib) {
  lib.impl("conv", TORCH_BOX(&nf::cuda::conv_op));
  lib.impl("conv_tangent", TORCH_BOX(&nf::cuda::conv_tangent_op));
  lib.impl("conv_gradient", TORCH_BOX(&nf::cuda::conv_gradient_op));
  lib.impl("conv_gradient_tangent", TORCH_BOX(&nf::cuda::conv_gradient_tangent_op));
  lib.impl("conv_of_table", TORCH_BOX(&nf::cuda::conv_of_table_op));
  lib.impl("conv_of_table_gradient", TORCH_BOX(&nf::cuda::conv_of_table_gradient_op));
}

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CompositeExplicitAutograd, lib) {
  lib.impl("cuda_conv_why_not", TORCH_BOX(&nf::cuda::why_not));
}
