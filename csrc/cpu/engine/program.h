// A trained model as the engine takes it: layers of irreps and plain matrices, every constant folded in.
// nequip_fast/engine/program.py writes it and explains it.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "cpu/gate/gate.h"

namespace nf {

struct Channels {
  int l, mul;
  int components() const { return 2 * l + 1; }
};

// A matrix [mul of `from`, mul of `to`] between two segments; of a self-connection one for each type.
struct LinearMap {
  int from, to;
  std::vector<double> matrix;
};

struct ConvolutionPath {
  int from, l2, to;  // segments of the senders' features and of the sums over neighbours
  double coefficient;
  std::vector<double> table;  // [intervals + 1][2][mul]: values and slopes times the interval
  int at = 0;                 // its channels' place among those of all paths to `to`
};

struct GateStep {
  int from, gate;  // segments before the gate; `gate` may be kNoGate or kNormGate (kernels.h)
  Activation activation;
  double constant;
};

struct LayerProgram {
  std::vector<Channels> in, sent, summed, before_gate, out;  // summed: the channels of all paths to it
  std::vector<double> sent_by_type, bias_by_type;            // [types][…, channels last]; of the first layer
  std::vector<LinearMap> send, mix, self_connection;
  std::vector<ConvolutionPath> paths;
  std::vector<GateStep> gate;
  bool residual, send_by_type;  // the latter: `send` has a matrix for each type, too
};

struct ReadoutLayer {
  int in, out;
  Activation activation;  // after it
  std::vector<double> matrix;
};

// Screened nuclear repulsion: half of factor · Zi Zj / r · Σ c exp(−d r/a) for each directed edge, with an envelope;
// nequip_fast/nn/pair_potential.py has the source of its constants.
struct Repulsion {
  double factor, exponent;      // of the envelope
  std::vector<double> numbers;  // Z [types]

  // The energy of an edge, and its derivative by the length.
  std::pair<double, double> operator()(double length, double cutoff, double z_centre, double z_neighbour) const;
};

struct Program {
  int types, l_max, intervals;
  std::vector<double> cutoff;  // [types][types]: of the centre, of the neighbour
  std::vector<LayerProgram> layers;
  std::vector<ReadoutLayer> readout;
  std::vector<double> scale, shift;  // [types]
  std::optional<Repulsion> repulsion;

  // Throws std::runtime_error where the lists are no program.
  Program(const std::vector<int64_t>& integers, const double* weights, int64_t count);
};

}  // namespace nf
