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

}  // namespace

// Widths in whole vectors and not; no rows, one, a tile and what is left of the next, for three threads or what there is;
// each row its own, and every third the one before it.
template <class T>
Results perceptrons(const ParallelFor& parallel) {
  Results results;
  const Threads threads{3, parallel};
  for (const MlpProblem& mlp_problem : {problem({3, 16, 32}, Activation::silu), problem({8, 5, 7, 33}, Activation::tanh)})
    for (int64_t rows : {0, 1, 330, -330}) {
      std::vector<int64_t> places;
      if (rows < 0)
        for (rows = -rows; int64_t(places.size()) < rows;) places.push_back(places.size() - (places.size() % 3 == 2));
      const Exact<int64_t> first(places);
      const int64_t in = rows * mlp_problem.dim_in, out = rows * mlp_problem.dim_out;
      const Exact<T> x = random<T>(in, 1), w = random<T>(mlp_problem.weights, 2), g = random<T>(out, 3), d = random<T>(in, 4);
      const MlpOperands<T> at{rows, x.data(), w.data(), places.empty() ? nullptr : first.data()};
      const Exact<T> y = unwritten<T>(out), to_g = unwritten<T>(out);
      mlp<T>(mlp_problem, at, y.data(), threads);
      results.add(y);
      for (int order : {1, 2}) {
        const Exact<T> dx = unwritten<T>(in), dw = unwritten<T>(mlp_problem.weights);
        if (order == 1) mlp_gradient<T>(mlp_problem, at, g.data(), {dx.data(), dw.data()}, threads);
        else mlp_gradient_tangent<T>(mlp_problem, at, g.data(), d.data(), {dx.data(), dw.data()}, to_g.data(), threads);
        results.add(dx), results.add(dw);
      }
      results.add(to_g);
    }
  return results;
}

template Results perceptrons<float>(const ParallelFor&);
template Results perceptrons<double>(const ParallelFor&);

}  // namespace nf::check
