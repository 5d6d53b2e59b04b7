// The layers of a multilayer perceptron; formulas: nequip_fast/ops/mlp.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "problems/gate.h"

namespace nf {

// h = activation(factor · (h below) A), A [width below, width]
struct MlpLayer {
  int width;
  Activation activation;
  double factor;
};

struct MlpProblem {
  int dim_in = 0, dim_out = 0;
  std::vector<MlpLayer> layers;
  int64_t weights = 0;  // of all matrices

  // The problem that `text` describes: two widths, then the three fields of each layer, as MlpProblem of
  // nequip_fast/ops/mlp.py writes them. Parsed and checked once, then kept. Throws std::runtime_error where there are
  // fewer than two layers, a width below one, an unknown activation, or one after the last layer.
  static const MlpProblem& of(const std::string& text);
};

}  // namespace nf
