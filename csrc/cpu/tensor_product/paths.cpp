#include "cpu/tensor_product/paths.h"

#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

#include "description.h"

namespace nf {

int64_t ProductPath::pairs() const {
  switch (mode) {
    case Mode::uuw:
    case Mode::uuu: return mul1;
    case Mode::uvu_pairs:
    case Mode::pairs_w: return int64_t(mul1) * (mul1 - 1) / 2;
    default: return int64_t(mul1) * mul2;
  }
}

namespace {

bool joins(const ProductPath& p) {
  const bool matrix = p.w >= 0;
  switch (p.mode) {
    case Mode::uvw: return matrix;
    case Mode::uvu: return p.mul3 == p.mul1;
    case Mode::uvv: return p.mul3 == p.mul2;
    case Mode::uuw: return p.mul2 == p.mul1 && (matrix || p.mul3 == 1);
    case Mode::uuu: return p.mul2 == p.mul1 && p.mul3 == p.mul1;
    case Mode::uvuv: return p.mul3 == int64_t(p.mul1) * p.mul2;
    case Mode::uvu_pairs: return p.mul2 == p.mul1 && p.mul3 == p.pairs();
    case Mode::pairs_w: return p.mul2 == p.mul1 && matrix;
  }
  return false;
}

bool fits(const ProductPath& p, const ProductProblem& problem) {
  const auto inside = [](int64_t begin, int64_t size, int64_t dim) { return begin >= 0 && begin + size <= dim; };
  return p.l1 >= 0 && p.l2 >= 0 && p.l3 >= std::abs(p.l1 - p.l2) && p.l3 <= p.l1 + p.l2 && p.mul1 > 0 && p.mul2 > 0 &&
         p.mul3 > 0 && joins(p) && inside(p.x, int64_t(p.mul1) * p.n1(), problem.dim_x) &&
         inside(p.y, int64_t(p.mul2) * p.n2(), problem.dim_y) && (p.w < 0 || inside(p.w, p.weights(), problem.dim_w)) &&
         inside(p.out, int64_t(p.mul3) * p.n3(), problem.dim_out);
}

}  // namespace

const ProductProblem& ProductProblem::of(const std::string& text) {
  return problem_of<ProductProblem>("tensor_product", text, [](Description numbers) {
    ProductProblem problem;
    numbers.read(problem.dim_x, problem.dim_y, problem.dim_w, problem.dim_out);
    while (!numbers.done()) {
      int mode;
      ProductPath p;
      numbers.read(mode, p.l1, p.l2, p.l3, p.mul1, p.mul2, p.mul3, p.x, p.y, p.w, p.out, p.coefficient);
      if (mode < 0 || mode > int(Mode::pairs_w))
        throw std::runtime_error("tensor_product: unknown mode " + std::to_string(mode));
      p.mode = Mode(mode);
      problem.paths.push_back(p);
    }
    problem.check();
    return problem;
  });
}

ProductProblem ProductProblem::weighted() const {
  ProductProblem problem{{}, dim_x, dim_y, dim_w, dim_out};
  std::copy_if(paths.begin(), paths.end(), std::back_inserter(problem.paths), [](const ProductPath& p) { return p.w >= 0; });
  return problem;
}

void ProductProblem::check() const {
  std::vector<std::pair<int64_t, int64_t>> blocks;
  for (const ProductPath& p : paths) {
    if (!fits(p, *this))
      throw std::runtime_error("tensor_product: path (" + std::to_string(p.l1) + ", " + std::to_string(p.l2) + ", " +
                               std::to_string(p.l3) + ") does not fit its mode or the rows given");
    blocks.emplace_back(p.w, p.weights());
  }
  std::sort(blocks.begin(), blocks.end());
  for (size_t k = 1; k < blocks.size(); ++k)
    if (blocks[k].first < blocks[k - 1].first + blocks[k - 1].second)
      throw std::runtime_error("tensor_product: paths overlap; each needs weights of its own");
}

}  // namespace nf
