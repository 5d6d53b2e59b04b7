// gate: from torch tensors to the kernels.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "description.h"
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

// As GateProblem of nequip_fast/ops/gate.py describes it: two widths, then the seven fields of each segment.
GateProblem parse(Description text) {
  GateProblem problem{{}, 0, 0, true};
  text.read(problem.dim_in, problem.dim_out);
  std::vector<Block> reads, writes;
  while (!text.done()) {
    GateSegment s;
    int activation;
    text.read(s.x, s.gate, s.out, s.mul, s.dim, activation, s.constant);
    STD_TORCH_CHECK(activation >= 0 && activation < kActivations && s.dim > 0 && (s.gate >= 0 || s.dim == 1),
                    "gate: segment ", problem.segments.size(),
                    " has an unknown activation, or more than one component and no gate");
    s.activation = Activation(activation);
    problem.segments.push_back(s);
    reads.emplace_back(s.x, int64_t(s.mul) * s.dim);
    if (s.gate >= 0) reads.emplace_back(s.gate, s.mul);
    writes.emplace_back(s.out, int64_t(s.mul) * s.dim);
  }
  bool written = true;
  STD_TORCH_CHECK(apart(reads, problem.dim_in, problem.reads_all) && apart(writes, problem.dim_out, written) && written,
                  "gate: the segments do not fit rows of ", problem.dim_in, " and ", problem.dim_out, " elements");
  return problem;
}

// Rows of `dim` numbers, the leading dimensions of `like`.
Tensor gate_rows(const Tensor& tensor, const Tensor& like, int64_t dim, const char* name) {
  bool same = tensor.dim() == like.dim() && tensor.dim() > 0 && tensor.size(tensor.dim() - 1) == dim;
  for (int64_t i = 0; same && i + 1 < like.dim(); ++i) same = tensor.size(i) == like.size(i);
  STD_TORCH_CHECK(same && tensor.is_cpu() && tensor.scalar_type() == like.scalar_type(), "gate: ", name,
                  " must be a CPU tensor [..., ", dim, "] of the shape and dtype of the others");
  return as_contiguous(tensor);
}

struct GateInputs {
  const GateProblem& problem;
  Tensor x;

  GateInputs(const Tensor& tensor, const std::string& segments)
      : problem(problem_of<GateProblem>("gate", segments, parse)), x(gate_rows(tensor, tensor, problem.dim_in, "x")) {}

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

Tensor gate_cpu(Tensor x, std::string segments) {
  const GateInputs in(x, segments);
  Tensor out = in.empty(in.problem.dim_out);
  in.each([&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.gate(in.problem, in.x.const_data_ptr<T>(), out.mutable_data_ptr<T>(), begin, end);
  });
  return out;
}

Tensor gate_vjp_cpu(Tensor x, Tensor g_, std::string segments) {
  const GateInputs in(x, segments);
  const Tensor g = gate_rows(g_, in.x, in.problem.dim_out, "g");
  Tensor dx = in.empty(in.problem.dim_in);
  in.each([&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.vjp(in.problem, in.x.const_data_ptr<T>(), g.const_data_ptr<T>(), dx.mutable_data_ptr<T>(), begin, end);
  });
  return dx;
}

std::tuple<Tensor, Tensor> gate_vjp_grad_cpu(Tensor x, Tensor g_, Tensor c_, std::string segments) {
  const GateInputs in(x, segments);
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
