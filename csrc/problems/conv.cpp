#include "problems/conv.h"

#include <algorithm>
#include <compare>
#include <cstdlib>
#include <stdexcept>

#include "description.h"

namespace nf {
namespace {

// One irrep of x or out: where it begins, how many elements, and its degree.
struct Block {
  int begin, size, l;
  auto operator<=>(const Block&) const = default;
};

// The kernels write an irrep as a whole, so two are apart or the same.
bool apart_or_same(std::vector<Block> blocks) {
  std::sort(blocks.begin(), blocks.end());
  for (size_t k = 1; k < blocks.size(); ++k)
    if (blocks[k].begin < blocks[k - 1].begin + blocks[k - 1].size && blocks[k] != blocks[k - 1]) return false;
  return true;
}

void check_inside(const ConvPath& p, const ConvProblem& problem) {
  const auto inside = [](int64_t offset, int64_t size, int dim) { return offset >= 0 && offset + size <= dim; };
  const bool degrees = p.l1 >= 0 && p.l2 >= 0 && p.l3 >= std::abs(p.l1 - p.l2) && p.l3 <= p.l1 + p.l2;
  const bool fits = p.mul >= 0 && p.w_stride >= 0 && inside(p.x, int64_t(p.mul) * (2 * p.l1 + 1), problem.dim_x) &&
                    inside(p.y, 2 * p.l2 + 1, problem.dim_y) &&
                    inside(p.out, int64_t(p.mul) * (2 * p.l3 + 1), problem.dim_out) &&
                    (!p.weighted() || p.mul == 0 || inside(p.w, int64_t(p.mul - 1) * p.w_stride + 1, problem.dim_w));
  if (!degrees || !fits)
    throw std::runtime_error("conv: path (" + std::to_string(p.l1) + ", " + std::to_string(p.l2) + ", " +
                             std::to_string(p.l3) + ") does not fit the rows given");
}

ConvProblem parse(Description text) {
  ConvProblem problem;
  text.read(problem.dim_x, problem.dim_y, problem.dim_w, problem.dim_out);
  std::vector<Block> x, out;
  std::vector<char> owned(std::max(problem.dim_w, 0), 0);
  bool weights_apart = true;
  while (!text.done()) {
    ConvPath p;
    text.read(p.l1, p.l2, p.l3, p.mul, p.x, p.y, p.w, p.w_stride, p.out, p.coefficient);
    check_inside(p, problem);
    x.push_back({p.x, p.mul * (2 * p.l1 + 1), p.l1});
    out.push_back({p.out, p.mul * (2 * p.l3 + 1), p.l3});
    for (int u = 0; p.weighted() && u < p.mul; ++u) {
      char& owner = owned[p.w + u * p.w_stride];
      weights_apart &= !owner;
      owner = 1;
    }
    problem.paths.push_back(p);
  }
  if (!weights_apart || !apart_or_same(x) || !apart_or_same(out))
    throw std::runtime_error("conv: paths overlap; each needs weights of its own, and irreps that do not cross");
  problem.covers_w = std::find(owned.begin(), owned.end(), 0) == owned.end();
  return problem;
}

}  // namespace

const ConvProblem& ConvProblem::of(const std::string& text) { return problem_of<ConvProblem>("conv", text, parse); }

}  // namespace nf
