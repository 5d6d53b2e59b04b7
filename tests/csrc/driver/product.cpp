#include "cpu/tensor_product/product.h"

#include <vector>

#include "cg_tables.h"
#include "check.h"

namespace nf::check {
namespace {

struct Degrees {
  int l1, l2, l3;
};
const std::vector<Degrees> kAny = {{0, 0, 0}, {1, 1, 1}, {1, 2, 1}, {kMaxL + 1, 1, kMaxL}};  // the last is never compiled
const std::vector<Degrees> kScalarY = {{0, 0, 0}, {1, 0, 1}, {kMaxL + 1, 0, kMaxL + 1}};

// A path for each choice of degrees, with blocks and weights of its own, one more that adds to the output of the
// first, and columns that belong to none.
ProductProblem problem(Mode mode, int mul1, int mul2, int mul3, bool weighted,
                       const std::vector<Degrees>& degrees = kAny) {
  constexpr int kGap = 1;
  ProductProblem problem{{}, 0, 0, 0, 0};
  const auto add = [&](ProductPath p) {
    if (p.weights() > 0) {
      p.w = problem.dim_w + kGap;
      problem.dim_w = p.w + p.weights();
    }
    problem.paths.push_back(p);
  };
  for (const auto& [l1, l2, l3] : degrees) {
    const ProductPath p{mode, l1, l2, l3, mul1, mul2, mul3, problem.dim_x + kGap, problem.dim_y + kGap,
                        weighted ? 0 : -1, problem.dim_out + kGap, 0.75};
    problem.dim_x = p.x + mul1 * p.n1();
    problem.dim_y = p.y + mul2 * p.n2();
    problem.dim_out = p.out + mul3 * p.n3();
    add(p);
  }
  add(problem.paths.front());
  problem.check();
  return problem;
}

std::vector<ProductProblem> problems() {
  return {
      problem(Mode::uvw, 7, 3, 5, true),    problem(Mode::uvw, 2, 9, 1, true),      problem(Mode::uvw, 17, 1, 33, true),
      problem(Mode::uvu, 5, 3, 5, true),    problem(Mode::uvu, 1, 4, 1, false),     problem(Mode::uvv, 5, 3, 3, true),
      problem(Mode::uuw, 6, 6, 4, true),    problem(Mode::uuw, 6, 6, 1, false),     problem(Mode::uuu, 9, 9, 9, true),
      problem(Mode::uuu, 3, 3, 3, false),   problem(Mode::uvuv, 3, 4, 12, true),    problem(Mode::uvuv, 4, 3, 12, false),
      problem(Mode::uvu_pairs, 4, 4, 6, true), problem(Mode::pairs_w, 5, 5, 3, true),
      problem(Mode::uvw, 7, 4, 3, true, kScalarY), problem(Mode::uvw, 1, 3, 17, true, kScalarY),
      {{}, 4, 1, 2, 5},  // no path at all
  };
}

// A few different rows of scalars are a case of their own: all equal row 0 or 1 here.
template <class T>
void repeat_two_rows(const Exact<T>& values, int64_t dim) {
  for (int64_t i = 2 * dim; i < values.size(); ++i) values.data()[i] = values.data()[i % (2 * dim)];
}

template <class T>
void one(const ProductProblem& problem, int64_t batch, int single, const ParallelFor& parallel, Results& results) {
  const auto rows = [&](int bit) { return single & bit ? int64_t(1) : batch; };  // one row that all samples share
  const Threads threads{3, parallel};
  const int64_t size_x = rows(1) * problem.dim_x, size_y = rows(2) * problem.dim_y, size_w = rows(4) * problem.dim_w;
  const Exact<T> x = random<T>(size_x, 1), y = random<T>(size_y, 2), w = random<T>(size_w, 3);
  const Exact<T> g = random<T>(batch * problem.dim_out, 4), out = unwritten<T>(batch * problem.dim_out);
  const auto scalar_y = [](const ProductPath& p) { return p.l2 == 0; };
  if (std::all_of(problem.paths.begin(), problem.paths.end(), scalar_y)) repeat_two_rows(y, problem.dim_y);
  const ProductOperands<T> operands{batch, rows(1), rows(2), rows(4), x.data(), y.data(), w.data()};
  tensor_product(problem, operands, out.data(), threads);
  results.add(out);
  const Exact<T> x_along = random<T>(size_x, 5), y_along = random<T>(size_y, 6), w_along = random<T>(size_w, 7);
  const auto tangent = [&](int bits) {
    return ProductTangent<T>{bits & 1 ? x_along.data() : nullptr, bits & 2 ? y_along.data() : nullptr,
                             bits & 4 ? w_along.data() : nullptr};
  };
  const Exact<T> derivative = unwritten<T>(batch * problem.dim_out);
  tensor_product_tangent(problem, operands, tangent(7), derivative.data(), threads);
  results.add(derivative);
  for (int wanted : {1, 2, 4, 7}) {
    const Exact<T> dx = unwritten<T>(wanted & 1 ? size_x : 0), dy = unwritten<T>(wanted & 2 ? size_y : 0),
                   dw = unwritten<T>(wanted & 4 ? size_w : 0);
    const ProductGradients<T> to{wanted & 1 ? dx.data() : nullptr, wanted & 2 ? dy.data() : nullptr,
                                 wanted & 4 ? dw.data() : nullptr};
    const std::vector<int> tangents = wanted == 7 ? std::vector{0, 1, 2, 4, 3, 7} : std::vector{0, 7};
    for (const int along : tangents) {
      along ? tensor_product_gradient_tangent(problem, operands, tangent(along), g.data(), to, threads)
            : tensor_product_gradient(problem, operands, g.data(), to, threads);
      for (const Exact<T>* gradient : {&dx, &dy, &dw}) results.add(*gradient);
    }
  }
}

// Scalar attributes that are rows of a table, of which the last may be nobody's.
template <class T>
void rows_of_table(const ProductProblem& problem, int64_t batch, int64_t rows, const ParallelFor& parallel,
                   Results& results) {
  const Threads threads{3, parallel};
  const int64_t size_table = rows * problem.dim_y, size_mixed = rows * contracted_weights(problem),
                size_x = batch * problem.dim_x, size_out = batch * problem.dim_out;
  const Exact<T> table = random<T>(size_table, 1), w = random<T>(problem.dim_w, 2), mixed = random<T>(size_mixed, 3),
                 x = random<T>(size_x, 4), g = random<T>(size_out, 5);
  std::vector<int64_t> numbers(batch);
  for (int64_t i = 0; i < batch; ++i) numbers[i] = i * 7 % std::max<int64_t>(rows - 1, 1);
  const Exact<int64_t> row(numbers);
  const Exact<T> contracted = unwritten<T>(size_mixed), to_table = unwritten<T>(size_table),
                 to_w = unwritten<T>(problem.dim_w), out = unwritten<T>(size_out), to_x = unwritten<T>(size_x),
                 to_mixed = unwritten<T>(size_mixed);
  contract_attributes(problem, rows, table.data(), w.data(), contracted.data(), threads);
  contract_attributes_gradient(problem, rows, table.data(), w.data(), mixed.data(), to_table.data(), to_w.data(), threads);
  const MixByRowOperands<T> in{batch, rows, x.data(), mixed.data(), row.data()};
  mix_by_row(problem, in, out.data(), threads);
  mix_by_row_gradient(problem, in, g.data(), to_x.data(), to_mixed.data(), threads);
  for (const Exact<T>* values : {&contracted, &to_table, &to_w, &out, &to_x, &to_mixed}) results.add(*values);
}

}  // namespace

template <class T>
Results product(const ParallelFor& parallel) {
  Results results;
  for (const ProductProblem& problem : problems())
    for (int64_t batch : {0, 1, 5, 37, 150})
      for (int single : {0, 1, 4, 6})  // many samples where they share the weights, whose gradients are summed
        if (batch <= 37 || single & 4) one<T>(problem, batch, single, parallel, results);
  for (const ProductProblem& problem :
       {problem(Mode::uvw, 7, 4, 3, true, kScalarY), problem(Mode::uvw, 1, 3, 17, true, kScalarY)})
    for (int64_t batch : {0, 1, 37})
      for (int64_t rows : {1, 3}) rows_of_table<T>(problem, batch, rows, parallel, results);
  return results;
}

template Results product<float>(const ParallelFor&);
template Results product<double>(const ParallelFor&);

}  // namespace nf::check
