// The weights of a layer's paths at the distances of a chunk of edges: from tables, or from the perceptron itself.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/engine/edges.h"
#include "cpu/engine/kernels.h"
#include "cpu/engine/matrix.h"
#include "cpu/engine/program.h"
#include "cpu/padded.h"

namespace nf {

// What a thread needs for the chunk it works on.
template <class T>
struct RadialWork {
  Buffer<int32_t> knot;
  Buffer<T> place, basis;  // [3][count]: t, width, density; [kBasis][count]
  TablePlaces<T> at;
  std::vector<Buffer<T>> hidden, slope, to_hidden;  // of each hidden layer, [edges][padded width]
  std::vector<const T*> from;
  std::vector<T*> to;
  Buffer<T> slopes;    // of the weights of the edges asked for last, by r/r_c
  Buffer<T> to_reach;  // [edges][lanes], sums in parts
};

template <class T>
class Radial {
 public:
  // A chunk: edges first … first + count − 1.
  struct Chunk {
    const Edges<T>& edges;
    int64_t first;
    int count;
    RadialWork<T>& work;
    bool gradients;  // whether take() will be called
  };

  const int most_edges;  // that weights() is best asked for at a time

  virtual ~Radial() = default;
  virtual bool exact() const = 0;
  virtual void begin(const Chunk&) const = 0;
  // w[e] = the weights of a path at edges at … at + count − 1 of the chunk, rows of `width` (padded); afterwards
  // take() is given their gradients, from which end() adds to to_reach[e] (by edge of the call)
  virtual void weights(const Chunk&, int path, int at, int count, T* w) const = 0;
  virtual void take(const Chunk&, int path, int at, int count, const T* to_w) const = 0;
  virtual void end(const Chunk&, T* to_reach) const = 0;

  // `widths`: of the paths' rows
  static std::unique_ptr<Radial> make(const LayerProgram&, const std::vector<int>& widths, const EngineKernels<T>&);

 protected:
  explicit Radial(int most_edges) : most_edges(most_edges) {}
};

template <class T>
class TabulatedRadial final : public Radial<T> {
 public:
  using Chunk = typename Radial<T>::Chunk;

  TabulatedRadial(const LayerProgram& layer, const std::vector<int>& widths, const EngineKernels<T>& kernels)
      : Radial<T>(kernels.lanes), kernels_(kernels), intervals_(layer.radial.intervals) {
    const std::vector<double>& knots = layer.radial.knots;
    for (int k = 0; k < intervals_; ++k) knots_.push_back({knots[k], knots[k + 1] - knots[k], 1 / (knots[k + 1] - knots[k])});
    for (int part = 0, knot = 0; part < kParts; ++part) {
      while (knots[knot + 1] <= double(part) / kParts) ++knot;
      first_knot_[part] = knot;
    }
    for (size_t k = 0; k < widths.size(); ++k)
      paths_.push_back(path(layer, layer.paths[k], widths[k]));
  }

  bool exact() const override { return false; }

  void begin(const Chunk& chunk) const override {
    RadialWork<T>& work = chunk.work;
    const int64_t count = padded(chunk.count, kernels_.lanes);
    int32_t* const knot = work.knot.get(chunk.count);
    T *const t = work.place.zeros(3 * count), *const width = t + count, *const density = width + count;
    for (int e = 0; e < chunk.count; ++e) {
      const double x = chunk.edges.reach.get()[chunk.first + e];
      const Knot& below = knots_[knot[e] = last_knot_before(x)];
      t[e] = T((x - below.at) * below.density), width[e] = T(below.width), density[e] = T(below.density);
    }
    work.at = {knot, work.basis.get(kBasis * count), count};
    kernels_.hermite(t, width, density, count, work.basis.get());
    if (chunk.gradients) work.to_reach.zeros(int64_t(chunk.count) * kernels_.lanes);
  }

  void weights(const Chunk& chunk, int path, int at, int count, T* w) const override {
    const auto& [width, table] = paths_[path];
    RadialWork<T>& work = chunk.work;
    if (chunk.gradients)
      kernels_.weights_and_slopes(work.at, at, count, table.get(), width, w, work.slopes.get(int64_t(count) * width));
    else
      kernels_.weights(work.at, at, count, table.get(), width, w);
  }

  void take(const Chunk& chunk, int path, int at, int count, const T* to_w) const override {
    kernels_.add_products(to_w, chunk.work.slopes.get(), count, paths_[path].width,
                          chunk.work.to_reach.get() + int64_t(at) * kernels_.lanes);
  }

  void end(const Chunk& chunk, T* to_reach) const override {
    kernels_.add_sums(chunk.work.to_reach.get(), 1, chunk.count, to_reach + chunk.first);
  }

 private:
  struct Knot {
    double at, width, density;  // of the interval that begins there; density: 1 over the width
  };
  struct PathTable {
    int width;
    Scratch<T> table;  // [intervals + 1][vectors][kTableRows][lanes]
  };

  PathTable path(const LayerProgram& layer, const ConvolutionPath& path, int width) const {
    const int mul = layer.sent[path.from].mul, all = layer.radial.width;
    PathTable prepared{width, Scratch<T>(int64_t(intervals_ + 1) * kTableRows * width)};
    std::fill_n(prepared.table.get(), int64_t(intervals_ + 1) * kTableRows * width, T(0));
    for (int k = 0; k <= intervals_; ++k) {
      const double *value = layer.radial.table.data() + int64_t(k) * kKnotValues * all + path.first, *slope = value + all,
                   *curvature = slope + all, *next = curvature + all;
      const int lanes = kernels_.lanes;
      for (int u = 0; u < mul; ++u) {
        T* const at = prepared.table.get() + int64_t(k) * kTableRows * width + u / lanes * kTableRows * lanes + u % lanes;
        at[0] = T(value[u]), at[lanes] = T(slope[u]), at[2 * lanes] = T(curvature[u]);
        if (k < intervals_) at[3 * lanes] = T(next[u] - value[u]);
      }
    }
    return prepared;
  }

  int last_knot_before(double x) const {
    int knot = first_knot_[std::min(int(x * kParts), kParts - 1)];
    while (knot + 1 < intervals_ && x >= knots_[knot + 1].at) ++knot;
    return knot;
  }

  static constexpr int kParts = 1024;  // of 0 … 1: where the search for an interval begins

  const EngineKernels<T>& kernels_;
  int intervals_;
  std::vector<Knot> knots_;
  int first_knot_[kParts];  // the last one that is not beyond the part's beginning
  std::vector<PathTable> paths_;
};

// The hidden layers once a chunk, the last one, which gives the weights, for a few tiles of a path at a time; backward
// the gradients by the last hidden layer gather over the paths.
template <class T>
class ExactRadial final : public Radial<T> {
 public:
  using Chunk = typename Radial<T>::Chunk;

  ExactRadial(const LayerProgram& layer, const std::vector<int>& widths, const EngineKernels<T>& kernels)
      : Radial<T>(4 * kernels.lanes), kernels_(kernels), activation_(layer.radial.activation),
        constant_(layer.radial.constant), combined_(layer.radial.combined) {
    const RadialProgram& radial = layer.radial;
    const int hidden = int(radial.widths.size()) - 2;
    for (int k = 0; k <= hidden; ++k) widths_.push_back(padded(radial.widths[k], kernels.lanes));
    for (int k = 0; k < hidden; ++k)
      layers_.push_back(matrices(radial.matrices[k], radial.widths[k], radial.widths[k + 1], radial.widths[k + 1], 0,
                                 widths_[k + 1], widths_[k]));
    const int last = radial.widths[hidden];
    for (size_t k = 0; k < widths.size(); ++k)
      paths_.push_back(matrices(radial.matrices[hidden], last, radial.width, layer.sent[layer.paths[k].from].mul,
                                layer.paths[k].first, widths[k], widths_[hidden]));
  }

  bool exact() const override { return true; }

  void begin(const Chunk& chunk) const override {
    RadialWork<T>& work = chunk.work;
    const size_t hidden = layers_.size();
    work.hidden.resize(std::max(work.hidden.size(), hidden));
    work.slope.resize(work.hidden.size()), work.to_hidden.resize(work.hidden.size() + 1);
    for (size_t k = 0; k < hidden; ++k) {
      const int64_t size = int64_t(chunk.count) * widths_[k + 1];
      T* values = work.hidden[k].get(size);
      const Matrix<T>& matrix = layers_[k].forward;
      multiply(work, input(chunk, k), input_width(chunk, k), matrix, matrix.inner, values, widths_[k + 1], chunk.count, false);
      if (activated(k))
        kernels_.activate(activation_, constant_, values, chunk.gradients ? work.slope[k].get(size) : nullptr, size);
    }
    if (chunk.gradients) work.to_hidden[hidden].zeros(int64_t(chunk.count) * widths_[hidden]);
  }

  void weights(const Chunk& chunk, int path, int at, int count, T* w) const override {
    const size_t hidden = layers_.size();
    const int width = input_width(chunk, hidden);
    const Matrix<T>& matrix = paths_[path].forward;
    multiply(chunk.work, input(chunk, hidden) + int64_t(at) * width, width, matrix, matrix.inner, w, matrix.width, count, false);
  }

  void take(const Chunk& chunk, int path, int at, int count, const T* to_w) const override {
    const size_t hidden = layers_.size();
    const Matrix<T>& matrix = paths_[path].reverse;
    multiply(chunk.work, to_w, paths_[path].forward.width, matrix, matrix.inner,
             chunk.work.to_hidden[hidden].get() + int64_t(at) * widths_[hidden], widths_[hidden], count, true);
  }

  void end(const Chunk& chunk, T* to_reach) const override {
    RadialWork<T>& work = chunk.work;
    for (size_t k = layers_.size(); k-- > 0;) {
      T *g = work.to_hidden[k + 1].get(), *below = work.to_hidden[k].get(int64_t(chunk.count) * widths_[k]);
      if (activated(k)) {
        const T* slope = work.slope[k].get();
        for (int64_t i = 0; i < int64_t(chunk.count) * widths_[k + 1]; ++i) g[i] *= slope[i];
      }
      const Matrix<T>& matrix = layers_[k].reverse;
      multiply(work, g, widths_[k + 1], matrix, matrix.inner, below, widths_[k], chunk.count, false);
    }
    const int functions = chunk.edges.functions;
    const T *g = work.to_hidden[0].get(), *slope = chunk.edges.basis_slope.get() + chunk.first * functions;
    for (int e = 0; e < chunk.count; ++e)
      for (int b = 0; b < functions; ++b) to_reach[chunk.first + e] += g[int64_t(e) * widths_[0] + b] * slope[e * functions + b];
  }

 private:
  struct Both {
    Matrix<T> forward, reverse;  // [in][padded out], [out][padded in]
  };

  // Columns first … first + columns − 1 of a matrix [rows][all].
  static Both matrices(const std::vector<double>& values, int rows, int all, int columns, int first, int padded_out,
                       int padded_in) {
    Both both{Matrix<T>(rows, padded_out), Matrix<T>(columns, padded_in)};
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j)
        both.forward.at(i, j) = both.reverse.at(j, i) = T(values[int64_t(i) * all + first + j]);
    return both;
  }

  // Whether the activation follows hidden layer k.
  bool activated(size_t k) const { return !combined_ || k + 1 < layers_.size(); }

  // What layer k takes, of the whole chunk, and the width of its rows.
  static const T* input(const Chunk& chunk, size_t k) {
    return k ? chunk.work.hidden[k - 1].get() : chunk.edges.basis.get() + chunk.first * chunk.edges.functions;
  }
  int input_width(const Chunk& chunk, size_t k) const { return k ? widths_[k] : chunk.edges.functions; }

  void multiply(RadialWork<T>& work, const T* a, int a_width, const Matrix<T>& b, int inner, T* c, int c_width, int rows,
                bool add) const {
    work.from.resize(rows), work.to.resize(rows);
    for (int e = 0; e < rows; ++e) work.from[e] = a + int64_t(e) * a_width, work.to[e] = c + int64_t(e) * c_width;
    kernels_.multiply(rows, work.from.data(), inner, b.data.get(), b.width, work.to.data(), add);
  }

  const EngineKernels<T>& kernels_;
  Activation activation_;
  double constant_;
  bool combined_;
  std::vector<int> widths_;  // padded, of the basis (for its gradient) and of the hidden layers
  std::vector<Both> layers_, paths_;
};

template <class T>
std::unique_ptr<Radial<T>> Radial<T>::make(const LayerProgram& layer, const std::vector<int>& widths,
                                           const EngineKernels<T>& kernels) {
  if (layer.radial.intervals) return std::make_unique<TabulatedRadial<T>>(layer, widths, kernels);
  return std::make_unique<ExactRadial<T>>(layer, widths, kernels);
}

}  // namespace nf
