#include "cpu/conv/problem.h"

#include <algorithm>
#include <charconv>
#include <compare>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <unordered_map>

namespace nf {
namespace {

// Numbers separated by blanks; independent of the locale.
class Reader {
 public:
  explicit Reader(const std::string& text) : at_(text.data()), end_(at_ + text.size()) {}

  bool done() {
    while (at_ != end_ && *at_ == ' ') ++at_;
    return at_ == end_;
  }

  template <class Number>
  Number next() {
    Number value{};
    if (done()) throw std::runtime_error("conv: the description of the paths ends too early");
    const auto [stop, error] = std::from_chars(at_, end_, value);
    if (error != std::errc{}) throw std::runtime_error("conv: the description of the paths has something that is no number");
    at_ = stop;
    return value;
  }

 private:
  const char *at_, *end_;
};

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

ConvProblem parse(const std::string& text) {
  Reader reader(text);
  ConvProblem problem;
  for (int* dim : {&problem.dim_x, &problem.dim_y, &problem.dim_w, &problem.dim_out}) *dim = reader.next<int>();
  std::vector<Block> x, out;
  std::vector<char> owned(std::max(problem.dim_w, 0), 0);
  bool weights_apart = true;
  while (!reader.done()) {
    ConvPath p;
    for (int* field : {&p.l1, &p.l2, &p.l3, &p.mul, &p.x, &p.y, &p.w, &p.w_stride, &p.out}) *field = reader.next<int>();
    p.coefficient = reader.next<double>();
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

const ConvProblem& ConvProblem::of(const std::string& text) {
  static std::mutex mutex;
  static std::unordered_map<std::string, ConvProblem> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find(text);
  return found != known.end() ? found->second : known.emplace(text, parse(text)).first->second;
}

}  // namespace nf
