// What a gate computes: activations of scalars, and irreps times activated scalars of their own; formulas:
// nequip_fast/ops/gate.py.
#pragma once

#include <string>
#include <vector>

namespace nf {

// In the order of ACTIVATIONS in nequip_fast/ops/gate.py.
enum class Activation { identity, silu, tanh, sigmoid, abs, ssp, softplus, relu, mish };
inline constexpr int kActivations = 9;

// Offsets of channels that are treated alike, in elements of a row; gate is −1 for scalars, whose dim is 1.
struct GateSegment {
  int x, gate, out, mul, dim;
  Activation activation;
  double constant;
};

struct GateProblem {
  std::vector<GateSegment> segments;
  int dim_in, dim_out;
  bool reads_all;  // no part of the input is left out

  // The problem that `text` describes: two widths, then the seven fields of each segment, as GateProblem of
  // nequip_fast/ops/gate.py writes them. Parsed and checked once, then kept. Throws std::runtime_error where segments
  // overlap, leave a row, or leave a part of the output out.
  static const GateProblem& of(const std::string& text);
};

}  // namespace nf
