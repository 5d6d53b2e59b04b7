#include "problems/linear.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "description.h"

namespace nf {
namespace {

bool fill_a_row(std::vector<std::pair<int64_t, int64_t>> begins_and_sizes, int64_t dim) {
  std::sort(begins_and_sizes.begin(), begins_and_sizes.end());
  int64_t end = 0;
  for (const auto& [begin, size] : begins_and_sizes) {
    if (begin != end) return false;
    end += size;
  }
  return end == dim;
}

LinearProblem parse(Description text) {
  LinearProblem problem;
  text.read(problem.dim_in, problem.dim_out);
  std::vector<std::pair<int64_t, int64_t>> written;
  bool fits = true;
  while (!text.done()) {
    LinearTarget target;
    int sources;
    text.read(target.column, target.channels, target.components, sources);
    fits = fits && target.channels >= 0 && target.components > 0;
    written.emplace_back(target.column, int64_t(target.channels) * target.components);
    for (int k = 0; k < sources; ++k) {
      LinearSource s;
      text.read(s.column, s.channels, s.weight);
      const int64_t end = s.column + int64_t(s.channels) * target.components;
      fits = fits && s.column >= 0 && s.channels >= 0 && s.weight >= 0 && end <= problem.dim_in;
      problem.weights = std::max(problem.weights, s.weight + int64_t(s.channels) * target.channels);
      target.sources.push_back(s);
    }
    problem.targets.push_back(target);
  }
  if (!fits || !fill_a_row(written, problem.dim_out))
    throw std::runtime_error("linear: the maps do not fit rows of " + std::to_string(problem.dim_in) + " and " +
                             std::to_string(problem.dim_out) + " elements");
  return problem;
}

}  // namespace

const LinearProblem& LinearProblem::of(const std::string& text) {
  return problem_of<LinearProblem>("linear", text, parse);
}

}  // namespace nf
