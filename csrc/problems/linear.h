// Linear maps between rows of segments.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nf {

// Channels of an irrep of a row, and where their matrix [channels, channels of the target] begins among the weights.
struct LinearSource {
  int column, channels, weight;
};

// out[column + v·components + i] = Σ_sources Σ_u x[source.column + u·components + i] w[source.weight + u·channels + v]
struct LinearTarget {
  int column, channels, components;
  std::vector<LinearSource> sources;
};

struct LinearProblem {
  int dim_in = 0, dim_out = 0;
  int64_t weights = 0;  // how many there are at least
  std::vector<LinearTarget> targets;

  // The problem that `text` describes: two widths, then of each target column, channels, components and the number of
  // sources, and their three fields each, as nequip_fast/engine/rows.py writes them. Parsed and checked once, then kept.
  // Throws std::runtime_error where a source leaves its row, or the targets do not fill theirs.
  static const LinearProblem& of(const std::string& text);
};

}  // namespace nf
