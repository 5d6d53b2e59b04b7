#include "cpu/mlp/mlp.h"

#include "check.h"

namespace nf::check {
namespace {

MlpProblem problem(const std::vector<int>& widths, Activation activation) {
  MlpProblem problem{widths.front(), widths.back(), {}, 0};
  for (size_t k = 1; k < widths.size(); ++k) {
    const bool last = k + 1 == widths.size();
    problem.layers.push_back({widths[k], last ? Activation::identity : activation, 1.0 / widths[k - 1]});
    problem.weights += int64_t(widths[k - 1]) * widths[k];
  }
  return problem;
}

template <class T>
void add_results(const MlpProblem& problem, int64_t rows, const int64_t* first, const Threads& threads, Results& results) {
  const int64_t in = rows * problem.dim_in, out = rows * problem.dim_out;
  const Exact<T> x = random<T>(in, 1), w = random<T>(problem.weights, 2), g = random<T>(out, 3), d = random<T>(in, 4);
  const MlpOperands<T> at{rows, x.data(), w.data(), first};
  const Exact<T> y = unwritten<T>(out), dx = unwritten<T>(in), dw = unwritten<T>(problem.weights),
                 dx2 = unwritten<T>(in), dw2 = unwritten<T>(problem.weights), to_g = unwritten<T>(out);
  mlp<T>(problem, at, y.data(), threads);
  mlp_gradient<T>(problem, at, g.data(), {dx.data(), dw.data()}, threads);
  mlp_gradient_tangent<T>(problem, at, g.data(), d.data(), {dx2.data(), dw2.data()}, to_g.data(), threads);
  for (const Exact<T>* values : {&y, &dx, &dw, &dx2, &dw2, &to_g}) results.add(*values);
}

}  // namespace

// Widths in whole vectors and not; no rows, one, a tile and what is left of the next for each of three threads; every row
// its own, and every third the one before it.
template <class T>
Results perceptrons(const ParallelFor& parallel) {
  Results results;
  for (const MlpProblem& mlp : {problem({3, 16, 32}, Activation::silu), problem({8, 5, 7, 33}, Activation::tanh)})
    for (int64_t rows : {0, 1, 330}) {
      std::vector<int64_t> first(rows);
      for (int64_t e = 0; e < rows; ++e) first[e] = e - (e % 3 == 2);
      add_results<T>(mlp, rows, nullptr, {3, parallel}, results);
      add_results<T>(mlp, rows, Exact<int64_t>(first).data(), {3, parallel}, results);
    }
  return results;
}

template Results perceptrons<float>(const ParallelFor&);
template Results perceptrons<double>(const ParallelFor&);

}  // namespace nf::check
