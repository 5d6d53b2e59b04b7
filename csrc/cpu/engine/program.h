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
  int first;         // its first column among the radial weights
  double coefficient;
};

// What the radial networks start from: basis_k(x) = scale · sin(frequency_k x) / x · envelope(x), x = r/r_c.
struct RadialBasis {
  enum class Envelope { polynomial, xplor };
  std::vector<double> frequencies;
  double scale;
  Envelope envelope;
  double parameter;  // the exponent, or r_on/r_c

  // The functions at 0 < x < 1 and their derivatives by x, [frequencies] each.
  void operator()(double x, double* values, double* slopes) const;
};

inline constexpr int kKnotValues = 3;

// The weights of all paths of a layer as functions of x: a perceptron without biases on the basis, or its table.
struct RadialProgram {
  int width;                         // of the weights
  int intervals = 0;                 // of the table; 0: there is none
  std::vector<double> knots;         // [intervals + 1], rising from 0 to 1
  std::vector<double> table;         // [intervals + 1][kKnotValues][width]: values, slopes, curvatures
  std::vector<int> widths;           // of the perceptron: basis, hidden layers …, weights
  std::vector<std::vector<double>> matrices;
  Activation activation = Activation::identity;  // of the hidden layers, times `constant`
  double constant = 1;
  bool combined = false;  // the last hidden layer has no activation: it combines what the one before gives
};

struct GateStep {
  int from, gate;  // segments before the gate; `gate` may be kNoGate or kNormGate (kernels.h)
  Activation activation;
  double constant;
};

struct LayerProgram {
  std::vector<Channels> in, sent, summed, before_gate, out;  // summed: the channels of all paths to it
  bool by_type;  // the layer's input, which is not there, depends on the type alone: what it sends and adds is given
  std::vector<double> sent_by_type, bias_by_type;  // [types][…, channels last]
  RadialProgram radial;
  std::vector<LinearMap> send, mix, self_connection;
  std::vector<ConvolutionPath> paths;
  std::vector<GateStep> gate;
  bool residual, send_by_type, connect_by_type;  // the latter two: `send`, `self_connection` have a matrix for each type
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
  int types, l_max;
  std::vector<double> cutoff;           // [types][types]: of the centre, of the neighbour
  std::vector<double> embedding;        // [types][scalars]: the features before the first layer, unless it is by_type
  std::optional<RadialBasis> basis;     // where a layer has a perceptron
  std::vector<LayerProgram> layers;
  std::vector<ReadoutLayer> readout;
  std::vector<double> scale, shift;  // [types]
  std::optional<Repulsion> repulsion;

  // Throws std::runtime_error where the lists are no program.
  Program(const std::vector<int64_t>& integers, const double* weights, int64_t count);
};

}  // namespace nf
