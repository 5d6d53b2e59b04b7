// gate: from torch tensors to the kernels.
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <utility>
#include <vector>

#include "cpu/gate/gate.h"
#include "tensors.h"

namespace nf {
namespace {

constexpr int64_t kNumbersPerTask = 1 << 15;  // fewer are not worth waking a thread for

using Block = std::pair<int64_t, int64_t>;  // first element of a row, number of elements

// Whether blocks lie in a row of `dim` elements without overlap; `filled` is set to whether they leave none out.
bool apart(std::vector<Block> blocks, int64_t dim, bool& filled) {
  std::sort(blocks.begin(), blocks.end());
  int64_t end = 0;
  filled = true;
  for (const auto& [first, size] : blocks) {
    if (first < end || size < 0) return false;
    filled &= first == end;
    end = first + size;
  }
  filled &= end == dim;
  return end <= dim;
}

GateProblem gate_problem(const std::vector<int64_t>& integers, const std::vector<double>& constants, int64_t dim_in) {
  STD_TORCH_CHECK(integers.size() == 6 * constants.size(), "gate: a segment is six integers and one constant");
  GateProblem problem{{}, int(dim_in), 0, true};
  std::vector<Block> reads, writes;
  for (size_t k = 0; k < constants.size(); ++k) {
    const int64_t* n = integers.data() + 6 * k;
    STD_TORCH_CHECK(n[5] >= 0 && n[5] < kActivations && n[4] > 0 && (n[1] >= 0 || n[4] == 1), "gate: segment ", k,
                    " has an unknown activation, or more than one component and no gate");
    problem.segments.push_back({int(n[0]), int(n[1]), int(n[2]), int(n[3]), int(n[4]), Activation(n[5]), constants[k]});
    problem.dim_out += int(n[3] * n[4]);
    reads.emplace_back(n[0], n[3] * n[4]);
    if (n[1] >= 0) reads.emplace_back(n[1], n[3]);
    writes.emplace_back(n[2], n[3] * n[4]);
  }
  bool written = true;
  STD_TORCH_CHECK(apart(reads, dim_in, problem.reads_all) && apart(writes, problem.dim_out, written) && written,
                  "gate: the segments do not fit rows of ", dim_in, " elements");
  return problem;
}

// Rows of `dim` numbers, the leading dimensions of `like`.
Tensor gate_rows(const Tensor& tensor, const Tensor& like, int64_t dim, const char* name) {
  bool same = tensor.dim() == like.dim() && tensor.size(tensor.dim() - 1) == dim;
  for (int64_t i = 0; same && i + 1 < like.dim(); ++i) same = tensor.size(i) == like.size(i);
  STD_TORCH_CHECK(same && tensor.is_cpu() && tensor.scalar_type() == like.scalar_type(), "gate: ", name,
                  " must be a CPU tensor [..., ", dim, "] of the shape and dtype of the others");
  return as_contiguous(tensor);
}

struct GateInputs {
  GateProblem problem;
  Tensor x;

  GateInputs(const Tensor& tensor, const std::vector<int64_t>& integers, const std::vector<double>& constants)
      : problem(gate_problem(integers, constants, tensor.dim() ? tensor.size(tensor.dim() - 1) : -1)),
        x(gate_rows(tensor, tensor, problem.dim_in, "x")) {}

  Tensor empty(int64_t dim) const {
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes.back() = dim;
    return new_tensor(x, sizes);
  }
  template <class Body>
  void each(const Body& body) const {
    const int64_t width = std::max(problem.dim_in, 1), rows = x.numel() / width;
    by_dtype(x, "gate", [&](auto t) {
      parallel(rows, kNumbersPerTask / width + 1,
               [&](int64_t begin, int64_t end) { body(gate_kernels<decltype(t)>(), t, begin, end); });
    });
  }
};

Tensor gate_cpu(Tensor x, std::vector<int64_t> integers, std::vector<double> constants) {
  const GateInputs in(x, integers, constants);
  Tensor out = in.empty(in.problem.dim_out);
  in.each([&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.gate(in.problem, in.x.const_data_ptr<T>(), out.mutable_data_ptr<T>(), begin, end);
  });
  return out;
}

Tensor gate_vjp_cpu(Tensor x, Tensor g_, std::vector<int64_t> integers, std::vector<double> constants) {
  const GateInputs in(x, integers, constants);
  const Tensor g = gate_rows(g_, in.x, in.problem.dim_out, "g");
  Tensor dx = in.empty(in.problem.dim_in);
  in.each([&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.vjp(in.problem, in.x.const_data_ptr<T>(), g.const_data_ptr<T>(), dx.mutable_data_ptr<T>(), begin, end);
  });
  return dx;
}

std::tuple<Tensor, Tensor> gate_vjp_grad_cpu(Tensor x, Tensor g_, Tensor c_, std::vector<int64_t> integers,
                                             std::vector<double> constants) {
  const GateInputs in(x, integers, constants);
  const Tensor g = gate_rows(g_, in.x, in.problem.dim_out, "g"), c = gate_rows(c_, in.x, in.problem.dim_in, "c");
  Tensor dx = in.empty(in.problem.dim_in), dg = in.empty(in.problem.dim_out);
  in.each([&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.vjp_grad(in.problem, in.x.const_data_ptr<T>(), g.const_data_ptr<T>(), c.const_data_ptr<T>(),
                     dx.mutable_data_ptr<T>(), dg.mutable_data_ptr<T>(), begin, end);
  });
  return {dx, dg};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("gate", TORCH_BOX(&nf::gate_cpu));
  lib.impl("gate_vjp", TORCH_BOX(&nf::gate_vjp_cpu));
  lib.impl("gate_vjp_grad", TORCH_BOX(&nf::gate_vjp_grad_cpu));
}
