// Every operator's schema in one place, and the thin layer between torch tensors and the kernels' plain pointers (for
// engine, gate, radial, spherical_harmonics and tensor_product: operator.cpp in their folders).
// LibTorch's stable ABI only: one binary serves torch 2.10 and later, any Python, CPU or CUDA builds of torch.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "cg/coupling.h"
#include "cpu/conv/conv.h"
#include "cpu/isa.h"
#include "cpu/segment_sum/segment_sum.h"
#include "tensors.h"
#if defined(NF_CUDA)
#include "cuda/segment_sum/segment_sum.h"
// Only CUDA builds of torch define it; weak, so that the library loads in CPU builds too.
#pragma weak aoti_torch_get_current_cuda_stream
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);
#endif

namespace nf {
namespace {

// --- conv ---

// Shapes, dtypes and indices of a call, checked; contiguous copies where the caller's tensors are not.
struct ConvInputs {
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

// The tangents of a call, shapes as those of x, y and w; contiguous.
struct ConvTangents {
  std::optional<Tensor> x, y, w;

  ConvTangents(const ConvInputs& in, const std::optional<Tensor>& x_, const std::optional<Tensor>& y_,
               const std::optional<Tensor>& w_)
      : x(checked(in, x_, in.x, "conv: tangent of x")), y(checked(in, y_, in.y, "conv: tangent of y")),
        w(checked(in, w_, in.w, "conv: tangent of w")) {}

  static std::optional<Tensor> checked(const ConvInputs& in, const std::optional<Tensor>& tangent, const Tensor& at,
                                       const char* name) {
    if (!tangent) return std::nullopt;
    in.check_matrix(*tangent, at.size(0), at.size(1), name);
    return as_contiguous(*tangent);
  }

  template <class T>
  ConvTangent<T> direction() const {
    const auto data = [](const std::optional<Tensor>& t) { return t ? t->const_data_ptr<T>() : nullptr; };
    return {{data(x), data(y), data(w)}};
  }
};

Tensor conv_tangent_cpu(Tensor x, Tensor y, Tensor w, std::optional<Tensor> dx, std::optional<Tensor> dy,
                        std::optional<Tensor> dw, Tensor receiver, Tensor sender, Tensor receiver_ptr,
                        Tensor receiver_order, Tensor sender_ptr, Tensor sender_order, std::string paths) {
  const ConvInputs in(x, y, w, receiver, sender, receiver_ptr, receiver_order, sender_ptr, sender_order, paths);
  const ConvTangents along(in, dx, dy, dw);
  Tensor out = new_tensor(in.x, {in.graph.by_receiver.nodes, in.problem.dim_out});
  by_dtype(in.x, "conv", [&](auto t) {
    using T = decltype(t);
    conv<T>(in.graph, in.problem, in.point<T>(), along.direction<T>(), out.mutable_data_ptr<T>(), threads());
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
  const ConvTangents along(in, dx, dy, dw);
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
    conv_gradient<T>(in.graph, in.problem, in.point<T>(), along.direction<T>(), cotangent.const_data_ptr<T>(), to,
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

// --- graphs ---

// (ptr, order): the edges of each node in ascending order, by counting.
std::tuple<Tensor, Tensor> visiting_order_cpu(Tensor node_, int64_t num_nodes) {
  const Tensor node = as_contiguous(node_);
  const int64_t edges = node.numel();
  check_index(node, edges, "graph: edge_index");
  check_range(node, num_nodes, "graph: edge_index");
  Tensor ptr = new_tensor(node, {num_nodes + 1}), order = new_tensor(node, {edges});
  const int64_t* nodes = node.const_data_ptr<int64_t>();
  int64_t *starts = ptr.mutable_data_ptr<int64_t>(), *sorted = order.mutable_data_ptr<int64_t>();
  std::vector<int64_t> next(num_nodes + 1, 0);
  for (int64_t e = 0; e < edges; ++e) ++next[nodes[e] + 1];
  for (int64_t i = 0; i < num_nodes; ++i) next[i + 1] += next[i];
  std::copy(next.begin(), next.end(), starts);
  for (int64_t e = 0; e < edges; ++e) sorted[next[nodes[e]]++] = e;
  return {ptr, order};
}

// --- segment_sum ---

Tensor segment_sum_cpu(Tensor m_, Tensor ptr_, Tensor order_, Tensor) {
  const Tensor m = as_contiguous(m_), ptr = as_contiguous(ptr_),
               order = as_contiguous(order_);
  check_index(order, m.size(0), "segment_sum: receiver_order");
  check_index(ptr, ptr.numel(), "segment_sum: receiver_ptr");
  check_range(order, m.size(0), "segment_sum: receiver_order");
  check_segments(ptr, m.size(0), "segment_sum: receiver_ptr");
  const int64_t nodes = ptr.numel() - 1, dim = m.size(1);
  Tensor out = new_tensor(m, {nodes, dim});
  by_dtype(m, "segment_sum", [&](auto t) {
    using T = decltype(t);
    const T* from = m.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    const int64_t *starts = ptr.const_data_ptr<int64_t>(), *edges = order.const_data_ptr<int64_t>();
    parallel(nodes, 16, [&](int64_t begin, int64_t end) { segment_sum(from, starts, edges, to, dim, begin, end); });
  });
  return out;
}

#if defined(NF_CUDA)
Tensor segment_sum_cuda(Tensor m_, Tensor ptr_, Tensor order_, Tensor) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "segment_sum: this torch was built without CUDA");
  const Tensor m = as_contiguous(m_), ptr = as_contiguous(ptr_),
               order = as_contiguous(order_);
  check_index(order, m.size(0), "segment_sum: receiver_order");
  check_index(ptr, ptr.numel(), "segment_sum: receiver_ptr");
  for (const Tensor* index : {&ptr, &order})
    STD_TORCH_CHECK(index->is_cuda() && index->get_device_index() == m.get_device_index(),
                    "segment_sum: m and the graph must be on one device");
  const torch::stable::accelerator::DeviceGuard guard(m.get_device_index());
  const int64_t nodes = ptr.numel() - 1, dim = m.size(1);
  Tensor out = torch::stable::new_empty(m, {nodes, dim});
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(m.get_device_index(), &stream) == 0, "segment_sum: no CUDA stream");
  by_dtype(m, "segment_sum", [&](auto t) {
    using T = decltype(t);
    const int error = cuda::segment_sum<T>(m.const_data_ptr<T>(), ptr.const_data_ptr<int64_t>(),
                                           order.const_data_ptr<int64_t>(), out.mutable_data_ptr<T>(), nodes, dim,
                                           stream);
    STD_TORCH_CHECK(error == 0, "segment_sum: CUDA error ", error);
  });
  return out;
}
#endif

// --- Clebsch-Gordan coefficients ---

// (m1, m2, m3 of every term in turn, the terms' values)
std::tuple<std::vector<int64_t>, std::vector<double>> coupling_terms(int64_t l1, int64_t l2, int64_t l3) {
  std::tuple<std::vector<int64_t>, std::vector<double>> lists;
  auto& [components, values] = lists;
  for (const Coupling::Term& term : coupling(int(l1), int(l2), int(l3)).terms) {
    components.insert(components.end(), {term.m1, term.m2, term.m3});
    values.push_back(term.value);
  }
  return lists;
}

// --- what this build is ---

std::string build_info() {
  std::string info = "cpu";
#if defined(NF_X86)
  info += " (plain, avx2, avx512)";
#else
  info += " (plain)";
#endif
#if defined(NF_CUDA)
  info += ", cuda (" NF_CUDA ")";
#endif
  return info;
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY(nequip_fast, lib) {
  // An operator linear in each of x, y and w, its derivative along a tangent, its gradients and their derivative
  // (nequip_fast/ops/trilinear.py); `constants` is what is not differentiated, at the end the problem's description.
#define NF_TRILINEAR(name, constants)                                                                                  \
  lib.def(name "(Tensor x, Tensor y, Tensor w, " constants ") -> Tensor");                                             \
  lib.def(name "_tangent(Tensor x, Tensor y, Tensor w, Tensor? dx, Tensor? dy, Tensor? dw, " constants ") -> Tensor"); \
  lib.def(name "_gradient(Tensor x, Tensor y, Tensor w, Tensor g, " constants                                          \
               ", bool want_x, bool want_y, bool want_w) -> (Tensor, Tensor, Tensor)");                                \
  lib.def(name "_gradient_tangent(Tensor x, Tensor y, Tensor w, Tensor g, Tensor? dx, Tensor? dy, Tensor? dw, "        \
               constants ", bool want_x, bool want_y, bool want_w) -> (Tensor, Tensor, Tensor)");
  NF_TRILINEAR("conv",
               "Tensor receiver, Tensor sender, Tensor receiver_ptr, Tensor receiver_order, Tensor sender_ptr, "
               "Tensor sender_order, str paths")
  NF_TRILINEAR("tensor_product", "str paths")
#undef NF_TRILINEAR
  lib.def("spherical_harmonics(Tensor vectors, int[] degrees, str normalization, bool normalize) -> Tensor");
  lib.def(
      "spherical_harmonics_vjp(Tensor vectors, Tensor g, int[] degrees, str normalization, bool normalize) -> Tensor");
  lib.def(
      "spherical_harmonics_vjp_grad(Tensor vectors, Tensor g, Tensor c, int[] degrees, str normalization, "
      "bool normalize) -> (Tensor, Tensor)");
  lib.def("gate(Tensor x, str segments) -> Tensor");
  lib.def("gate_vjp(Tensor x, Tensor g, str segments) -> Tensor");
  lib.def("gate_vjp_grad(Tensor x, Tensor g, Tensor c, str segments) -> (Tensor, Tensor)");
  lib.def("radial(Tensor x, float p, float factor, Tensor roots, bool single) -> Tensor");
  lib.def("radial_vjp(Tensor x, Tensor g, float p, float factor, Tensor roots, bool single) -> Tensor");
  lib.def(
      "radial_vjp_grad(Tensor x, Tensor g, Tensor c, float p, float factor, Tensor roots, bool single) -> "
      "(Tensor, Tensor)");
  lib.def("visiting_order(Tensor node, SymInt num_nodes) -> (Tensor, Tensor)");
  lib.def("segment_sum(Tensor m, Tensor ptr, Tensor order, Tensor receiver) -> Tensor");
  lib.def("engine_create(Tensor weights, int[] integers, bool is_double) -> int");
  lib.def(
      "engine_evaluate(Tensor positions, Tensor types, Tensor structure, Tensor cells, Tensor ptr, Tensor neighbour, "
      "Tensor shift, int number, bool derivatives, int threads) -> (Tensor, Tensor, Tensor)");
  lib.def("engine_destroy(int number) -> ()");
  lib.def("coupling(int l1, int l2, int l3) -> (int[], float[])");
  lib.def("build_info() -> str");
  lib.def("cpu_isa() -> str");
  lib.def("set_cpu_isa(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("conv", TORCH_BOX(&nf::conv_cpu));
  lib.impl("conv_tangent", TORCH_BOX(&nf::conv_tangent_cpu));
  lib.impl("conv_gradient", TORCH_BOX(&nf::conv_gradient_cpu));
  lib.impl("conv_gradient_tangent", TORCH_BOX(&nf::conv_gradient_tangent_cpu));
  lib.impl("visiting_order", TORCH_BOX(&nf::visiting_order_cpu));
  lib.impl("segment_sum", TORCH_BOX(&nf::segment_sum_cpu));
}

#if defined(NF_CUDA)
STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CUDA, lib) { lib.impl("segment_sum", TORCH_BOX(&nf::segment_sum_cuda)); }
#endif

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CompositeExplicitAutograd, lib) {
  lib.impl("coupling", TORCH_BOX(&nf::coupling_terms));
  lib.impl("build_info", TORCH_BOX(&nf::build_info));
  lib.impl("cpu_isa", TORCH_BOX(&nf::isa_name));
  lib.impl("set_cpu_isa", TORCH_BOX(&nf::set_isa));
}
