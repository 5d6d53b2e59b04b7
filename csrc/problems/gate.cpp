#include "problems/gate.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "description.h"

namespace nf {
namespace {

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

GateProblem parse(Description text) {
  GateProblem problem{{}, 0, 0, true};
  text.read(problem.dim_in, problem.dim_out);
  std::vector<Block> reads, writes;
  while (!text.done()) {
    GateSegment s;
    int activation;
    text.read(s.x, s.gate, s.out, s.mul, s.dim, activation, s.constant);
    if (activation < 0 || activation >= kActivations || s.dim <= 0 || (s.gate < 0 && s.dim != 1))
      throw std::runtime_error("gate: segment " + std::to_string(problem.segments.size()) +
                               " has an unknown activation, or more than one component and no gate");
    s.activation = Activation(activation);
    problem.segments.push_back(s);
    reads.emplace_back(s.x, int64_t(s.mul) * s.dim);
    if (s.gate >= 0) reads.emplace_back(s.gate, s.mul);
    writes.emplace_back(s.out, int64_t(s.mul) * s.dim);
  }
  bool written = true;
  if (!apart(reads, problem.dim_in, problem.reads_all) || !apart(writes, problem.dim_out, written) || !written)
    throw std::runtime_error("gate: the segments do not fit rows of " + std::to_string(problem.dim_in) + " and " +
                             std::to_string(problem.dim_out) + " elements");
  return problem;
}

}  // namespace

const GateProblem& GateProblem::of(const std::string& text) { return problem_of<GateProblem>("gate", text, parse); }

}  // namespace nf
