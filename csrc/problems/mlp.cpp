#include "problems/mlp.h"

#include <stdexcept>

#include "description.h"

namespace nf {
namespace {

MlpProblem parse(Description text) {
  MlpProblem problem;
  text.read(problem.dim_in, problem.dim_out);
  bool fits = problem.dim_in > 0;
  int below = problem.dim_in;
  while (!text.done()) {
    MlpLayer layer;
    int activation;
    text.read(layer.width, activation, layer.factor);
    fits = fits && layer.width > 0 && activation >= 0 && activation < kActivations;
    layer.activation = Activation(activation);
    problem.layers.push_back(layer);
    problem.weights += int64_t(below) * layer.width;
    below = layer.width;
  }
  if (!fits || problem.layers.size() < 2 || below != problem.dim_out ||
      problem.layers.back().activation != Activation::identity)
    throw std::runtime_error("mlp: at least two layers of one channel or more are needed, the last without activation");
  return problem;
}

}  // namespace

const MlpProblem& MlpProblem::of(const std::string& text) { return problem_of<MlpProblem>("mlp", text, parse); }

}  // namespace nf
