#include "cpu/engine/program.h"

#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <tuple>

#include "cpu/engine/kernels.h"

namespace nf {
namespace {

constexpr int64_t kMostChannels = 1 << 16, kMostDegrees = 11, kMostParts = 1 << 12, kMostIntervals = 1 << 20, kWidestRow = 1 << 20;

// Takes integers and numbers from the front of both lists.
class Reader {
 public:
  Reader(const std::vector<int64_t>& integers, const double* weights, int64_t count)
      : integers_(integers), weights_(weights), left_(count) {}

  int integer(int64_t low, int64_t high) {
    check(next_ < integers_.size(), "ends early");
    const int64_t value = integers_[next_++];
    check(value >= low && value <= high, "has a number out of range");
    return int(value);
  }
  int count() { return integer(0, kMostParts); }

  double number() {
    check(left_ >= 1, "lacks weights");
    --left_;
    return *weights_++;
  }
  std::vector<double> numbers(int64_t count) {
    check(left_ >= count, "lacks weights");
    std::vector<double> taken(weights_, weights_ + count);
    weights_ += count;
    left_ -= count;
    return taken;
  }
  void finish() { check(next_ == integers_.size() && left_ == 0, "has something left over"); }

  static void check(bool good, const char* what) {
    if (!good) throw std::runtime_error(std::string("engine: the program ") + what);
  }

 private:
  const std::vector<int64_t>& integers_;
  const double* weights_;
  int64_t left_;
  size_t next_ = 0;
};

int64_t dim(const std::vector<Channels>& segments) {
  int64_t sum = 0;
  for (const Channels& segment : segments) sum += segment.mul * segment.components();
  return sum;
}

std::vector<Channels> read_channels(Reader& reader) {
  std::vector<Channels> segments(reader.count());
  for (Channels& segment : segments) {
    segment.l = reader.integer(0, kMostDegrees);
    segment.mul = reader.integer(1, kMostChannels);
  }
  Reader::check(dim(segments) <= kWidestRow, "has rows that are too wide");
  return segments;
}

int read_index(Reader& reader, const std::vector<Channels>& of) { return reader.integer(0, int64_t(of.size()) - 1); }

std::vector<LinearMap> read_maps(Reader& reader, const std::vector<Channels>& from, const std::vector<Channels>& to,
                                 int copies) {
  std::vector<LinearMap> maps(reader.count());
  for (LinearMap& map : maps) {
    map.from = read_index(reader, from);
    map.to = read_index(reader, to);
    Reader::check(from[map.from].l == to[map.to].l, "mixes degrees");
    map.matrix = reader.numbers(int64_t(copies) * from[map.from].mul * to[map.to].mul);
  }
  return maps;
}

Activation read_activation(Reader& reader) { return Activation(reader.integer(0, kActivations - 1)); }

RadialBasis read_basis(Reader& reader, int functions) {
  RadialBasis basis;
  basis.envelope = RadialBasis::Envelope(reader.integer(0, 1));
  basis.frequencies = reader.numbers(functions);
  basis.scale = reader.number();
  basis.parameter = reader.number();
  return basis;
}

RadialProgram read_radial(Reader& reader, const std::optional<RadialBasis>& basis) {
  RadialProgram radial;
  radial.width = reader.integer(1, kWidestRow);
  radial.intervals = reader.integer(0, kMostIntervals);
  if (radial.intervals) {
    radial.knots = reader.numbers(radial.intervals + 1);
    Reader::check(radial.knots.front() == 0 && radial.knots.back() == 1, "has a table that does not go from 0 to 1");
    for (int k = 0; k < radial.intervals; ++k)
      Reader::check(radial.knots[k] < radial.knots[k + 1], "has a table whose knots do not rise");
    radial.table = reader.numbers(int64_t(radial.intervals + 1) * kKnotValues * radial.width);
    return radial;
  }
  Reader::check(basis.has_value(), "has a radial network without a basis");
  radial.widths = {int(basis->frequencies.size())};
  radial.activation = read_activation(reader);
  radial.constant = reader.number();
  radial.combined = reader.integer(0, 1);
  const int hidden = reader.integer(radial.combined, 64);
  for (int k = 0; k < hidden; ++k) radial.widths.push_back(reader.integer(1, kMostChannels));
  radial.widths.push_back(radial.width);
  for (int k = 0; k <= hidden; ++k)
    radial.matrices.push_back(reader.numbers(int64_t(radial.widths[k]) * radial.widths[k + 1]));
  return radial;
}

LayerProgram read_layer(Reader& reader, const std::vector<Channels>& in, const Program& program) {
  LayerProgram layer;
  layer.by_type = in.empty();
  layer.in = in;
  layer.sent = read_channels(reader);
  if (layer.by_type) {
    layer.send_by_type = layer.connect_by_type = false;
    layer.sent_by_type = reader.numbers(program.types * dim(layer.sent));
  } else {
    layer.send_by_type = reader.integer(0, 1);
    layer.send = read_maps(reader, in, layer.sent, layer.send_by_type ? program.types : 1);
  }
  layer.radial = read_radial(reader, program.basis);
  layer.summed.resize(reader.count());
  for (Channels& segment : layer.summed) segment = {reader.integer(0, kMostDegrees), 0};
  layer.paths.resize(reader.count());
  for (ConvolutionPath& path : layer.paths) {
    path.from = read_index(reader, layer.sent);
    path.l2 = reader.integer(0, program.l_max);
    path.to = read_index(reader, layer.summed);
    path.first = reader.integer(0, layer.radial.width - 1);
    path.coefficient = reader.number();
    const int l1 = layer.sent[path.from].l, l3 = layer.summed[path.to].l, mul = layer.sent[path.from].mul;
    Reader::check(l3 >= std::abs(l1 - path.l2) && l3 <= l1 + path.l2, "couples degrees that do not couple");
    Reader::check(path.first + mul <= layer.radial.width, "has a path without radial weights");
    layer.summed[path.to].mul += mul;
  }
  Reader::check(dim(layer.summed) <= kWidestRow, "has rows that are too wide");
  layer.before_gate = read_channels(reader);
  layer.mix = read_maps(reader, layer.summed, layer.before_gate, 1);
  if (layer.by_type) {
    if (reader.integer(0, 1)) layer.bias_by_type = reader.numbers(program.types * dim(layer.before_gate));
  } else {
    layer.connect_by_type = reader.integer(0, 1);
    layer.self_connection = read_maps(reader, in, layer.before_gate, layer.connect_by_type ? program.types : 1);
  }
  layer.gate.resize(reader.count());
  for (GateStep& step : layer.gate) {
    step.from = read_index(reader, layer.before_gate);
    step.gate = reader.integer(kNormGate, int64_t(layer.before_gate.size()) - 1);
    step.activation = read_activation(reader);
    step.constant = reader.number();
    const Channels& from = layer.before_gate[step.from];
    Reader::check(step.gate == kNormGate ? true
                  : step.gate == kNoGate ? from.l == 0
                                         : layer.before_gate[step.gate].l == 0 && layer.before_gate[step.gate].mul == from.mul,
                  "has a gate that does not fit");
    layer.out.push_back(from);
  }
  layer.residual = reader.integer(0, 1);
  if (layer.residual) {
    Reader::check(layer.out.size() == in.size(), "adds features of different irreps");
    for (size_t i = 0; i < in.size(); ++i)
      Reader::check(in[i].l == layer.out[i].l && in[i].mul == layer.out[i].mul, "adds features of different irreps");
  }
  return layer;
}

// polynomial_cutoff of nequip_fast/nn/radial.py, and its derivative
std::pair<double, double> polynomial_envelope(double x, double p) {
  const double power = std::pow(x, p - 1);
  const double a = -(p + 1) * (p + 2) / 2, b = p * (p + 2), c = -p * (p + 1) / 2;
  return {1 + power * x * (a + x * (b + x * c)), power * (a * p + x * (b * (p + 1) + x * c * (p + 2)))};
}

}  // namespace

Program::Program(const std::vector<int64_t>& integers, const double* weights, int64_t count) {
  Reader reader(integers, weights, count);
  types = reader.integer(1, kMostParts);
  l_max = reader.integer(0, kMostDegrees);
  cutoff = reader.numbers(int64_t(types) * types);
  for (const double length : cutoff) Reader::check(length > 0 && std::isfinite(length), "has an unusable cutoff");
  if (const int functions = reader.integer(0, kMostChannels)) basis = read_basis(reader, functions);
  std::vector<Channels> features;
  if (const int scalars = reader.integer(0, kMostChannels)) {
    features = {{0, scalars}};
    embedding = reader.numbers(int64_t(types) * scalars);
  }
  const int num_layers = reader.integer(1, 64);
  for (int k = 0; k < num_layers; ++k) {
    layers.push_back(read_layer(reader, features, *this));
    features = layers.back().out;
    Reader::check(!features.empty(), "has a layer that gives nothing");
  }
  int width = 0;
  for (const Channels& segment : layers.back().out) {
    Reader::check(segment.l == 0, "ends with features that are no scalars");
    width += segment.mul;
  }
  readout.resize(reader.integer(1, 64));
  for (ReadoutLayer& layer : readout) {
    layer.in = width;
    layer.out = width = reader.integer(1, kMostChannels);
    layer.activation = read_activation(reader);
    layer.matrix = reader.numbers(int64_t(layer.in) * layer.out);
  }
  Reader::check(width == 1, "gives more than an energy");
  scale = reader.numbers(types);
  shift = reader.numbers(types);
  if (reader.integer(0, 1)) {
    const double factor = reader.number(), exponent = reader.number();
    repulsion = Repulsion{factor, exponent, reader.numbers(types)};
  }
  reader.finish();
}

void RadialBasis::operator()(double x, double* values, double* slopes) const {
  double smooth, falling;  // the envelope and its derivative
  if (envelope == Envelope::polynomial) {
    std::tie(smooth, falling) = polynomial_envelope(x, parameter);
  } else {  // 1 up to `on`, then (1 − x²)² (1 + 2x² − 3 on²) / (1 − on²)³
    const double on = parameter * parameter, width = 1 - on, left = 1 - x * x;
    smooth = x < parameter ? 1 : left * left * (1 + 2 * x * x - 3 * on) / (width * width * width);
    falling = x < parameter ? 0 : 12 * x * left * (on - x * x) / (width * width * width);
  }
  for (size_t k = 0; k < frequencies.size(); ++k) {
    const double wave = std::sin(frequencies[k] * x) / x, slope = (frequencies[k] * std::cos(frequencies[k] * x) - wave) / x;
    values[k] = scale * wave * smooth;
    slopes[k] = scale * (slope * smooth + wave * falling);
  }
}

std::pair<double, double> Repulsion::operator()(double length, double cutoff, double z_centre,
                                                double z_neighbour) const {
  constexpr double kScreening[4][2] = {{0.02817, 0.20162}, {0.28022, 0.40290}, {0.50986, 0.94229}, {0.18175, 3.19980}};
  const double by_length = (std::pow(z_centre, 0.23) + std::pow(z_neighbour, 0.23)) / 0.46850;
  double screening = 0, slope = 0;
  for (const auto& [c, d] : kScreening) {
    const double term = c * std::exp(-d * by_length * length);
    screening += term;
    slope -= d * by_length * term;
  }
  const auto [envelope, by_x] = polynomial_envelope(length / cutoff, exponent);
  const double falling = by_x / cutoff;
  const double size = factor * z_centre * z_neighbour / length;
  return {size * screening * envelope,
          size * ((slope - screening / length) * envelope + screening * falling)};
}

}  // namespace nf
