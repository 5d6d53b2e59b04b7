// Every operator's schema in one place, and the functions that take no tensors; what takes some is operator.cpp in the
// folders of cpu/ and cuda/. LibTorch's stable ABI only: one binary serves torch 2.10 and later, any Python, CPU or CUDA
// builds of torch.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "cg/coupling.h"
#include "cpu/isa.h"

namespace nf {
namespace {

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
#define NF_GRAPH                                                                                    \
  "Tensor receiver, Tensor sender, Tensor receiver_ptr, Tensor receiver_order, Tensor sender_ptr, " \
  "Tensor sender_order, str paths"
  NF_TRILINEAR("conv", NF_GRAPH)
  NF_TRILINEAR("tensor_product", "str paths")
#undef NF_TRILINEAR
  // scalar attributes that are rows of a table: nequip_fast/ops/attributes.py
  lib.def("contract_attributes(Tensor table, Tensor w, str paths) -> Tensor");
  lib.def(
      "contract_attributes_gradient(Tensor table, Tensor w, Tensor g, str paths, bool want_table, bool want_w) -> "
      "(Tensor, Tensor)");
  lib.def("mix_by_row(Tensor x, Tensor w, Tensor row, str paths) -> Tensor");
  lib.def(
      "mix_by_row_gradient(Tensor x, Tensor w, Tensor g, Tensor row, str paths, bool want_x, bool want_w) -> "
      "(Tensor, Tensor)");
  // conv with weights of an edge formed from rows of a table: nequip_fast/ops/conv_of_rows.py
  lib.def("conv_of_table(Tensor x, Tensor y, Tensor h, Tensor table, Tensor first, " NF_GRAPH ") -> Tensor");
  lib.def("conv_of_table_gradient(Tensor x, Tensor y, Tensor h, Tensor table, Tensor first, Tensor g, " NF_GRAPH
          ", bool want_x, bool want_y, bool want_h) -> (Tensor, Tensor, Tensor)");
#undef NF_GRAPH
  lib.def("spherical_harmonics(Tensor vectors, int[] degrees, str normalization, bool normalize) -> Tensor");
  lib.def(
      "spherical_harmonics_vjp(Tensor vectors, Tensor g, int[] degrees, str normalization, bool normalize) -> Tensor");
  lib.def(
      "spherical_harmonics_vjp_grad(Tensor vectors, Tensor g, Tensor c, int[] degrees, str normalization, "
      "bool normalize) -> (Tensor, Tensor)");
  lib.def("gate(Tensor x, str segments) -> Tensor");
  lib.def("gate_vjp(Tensor x, Tensor g, str segments) -> Tensor");
  lib.def("gate_vjp_grad(Tensor x, Tensor g, Tensor c, str segments) -> (Tensor, Tensor)");
  lib.def("mlp(Tensor x, Tensor w, Tensor? first, str layers) -> Tensor");
  lib.def(
      "mlp_gradient(Tensor x, Tensor w, Tensor g, Tensor? first, str layers, bool want_x, bool want_w) -> "
      "(Tensor, Tensor)");
  lib.def(
      "mlp_gradient_tangent(Tensor x, Tensor w, Tensor g, Tensor d, Tensor? first, str layers, bool want_x, "
      "bool want_w) -> (Tensor, Tensor, Tensor)");
  lib.def("radial(Tensor x, float p, float factor, Tensor roots, bool single) -> Tensor");
  lib.def("radial_vjp(Tensor x, Tensor g, float p, float factor, Tensor roots, bool single) -> Tensor");
  lib.def(
      "radial_vjp_grad(Tensor x, Tensor g, Tensor c, float p, float factor, Tensor roots, bool single) -> "
      "(Tensor, Tensor)");
  lib.def("first_of_pair(Tensor receiver, Tensor sender, Tensor ptr, Tensor order, Tensor vectors, Tensor x) -> Tensor");
  lib.def("visiting_order(Tensor node, SymInt num_nodes) -> (Tensor, Tensor)");
  lib.def("segment_sum(Tensor m, Tensor ptr, Tensor order, Tensor receiver) -> Tensor");
  lib.def("hermite(Tensor x, Tensor knots, bool single) -> (Tensor, Tensor, Tensor)");
  lib.def("linear(Tensor x, Tensor w, int[] counts, int width, str maps, str precision) -> Tensor");
  lib.def("engine_create(Tensor weights, int[] integers, bool is_double) -> int");
  lib.def(
      "engine_evaluate(Tensor positions, Tensor types, Tensor structure, Tensor cells, Tensor ptr, Tensor neighbour, "
      "Tensor shift, int number, bool derivatives, int threads) -> (Tensor, Tensor, Tensor)");
  lib.def("engine_destroy(int number) -> ()");
  lib.def("cuda_conv_why_not(str paths) -> str");
  lib.def("coupling(int l1, int l2, int l3) -> (int[], float[])");
  lib.def("build_info() -> str");
  lib.def("cpu_isa() -> str");
  lib.def("set_cpu_isa(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CompositeExplicitAutograd, lib) {
  lib.impl("coupling", TORCH_BOX(&nf::coupling_terms));
  lib.impl("build_info", TORCH_BOX(&nf::build_info));
  lib.impl("cpu_isa", TORCH_BOX(&nf::isa_name));
  lib.impl("set_cpu_isa", TORCH_BOX(&nf::set_isa));
}
