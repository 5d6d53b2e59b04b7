// The paths of a tensor product, and the pairs of channels that each of them joins.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace nf {

// As in MODES of nequip_fast/ops/product_paths.py; the last two are 'uvu<v' and 'u<vw'.
enum class Mode { uvw, uvu, uvv, uuw, uuu, uvuv, uvu_pairs, pairs_w };

struct ProductPath {
  Mode mode;
  int l1, l2, l3, mul1, mul2, mul3;
  int64_t x, y, w, out;  // where its blocks begin in a row; w = −1 without weights
  double coefficient;

  int n1() const { return 2 * l1 + 1; }
  int n2() const { return 2 * l2 + 1; }
  int n3() const { return 2 * l3 + 1; }

  // A matrix of weights takes the pairs to the channels of the output, else each pair has one weight and one channel.
  bool mixes() const { return w >= 0 && (mode == Mode::uvw || mode == Mode::uuw || mode == Mode::pairs_w); }
  int64_t pairs() const;
  int64_t weights() const { return w < 0 ? 0 : mixes() ? pairs() * mul3 : pairs(); }
};

struct ProductProblem {
  std::vector<ProductPath> paths;
  int64_t dim_x, dim_y, dim_w, dim_out;

  // The problem that `text` describes: four widths, then the twelve fields of each path, as ProductProblem of
  // nequip_fast/ops/product_paths.py writes them. Parsed and checked once, then kept.
  static const ProductProblem& of(const std::string& text);

  // No column of w is without a path.
  bool all_weights_used() const {
    int64_t used = 0;
    for (const ProductPath& p : paths) used += p.weights();
    return used == dim_w;
  }

  // In every path y holds scalars, each of which has a matrix of weights.
  bool has_scalar_attributes() const {
    return std::all_of(paths.begin(), paths.end(),
                       [](const ProductPath& p) { return p.mode == Mode::uvw && p.l2 == 0; });
  }

  // The same without the paths that have no weights.
  ProductProblem weighted() const;

  // Throws std::runtime_error unless every path fits its rows and its mode, and has weights of its own.
  void check() const;
};

// Pairs (u + i·du, v + i·dv) for i < count, with their output channel k + i·dk where the path does not mix, and their
// weight (of a path that mixes: their row of weights) w + i·dw.
struct Sweep {
  int count;
  int64_t u, du, v, dv, k, dk, w, dw;

  Sweep part(int first, int size) const {
    return {size, u + first * du, du, v + first * dv, dv, k + first * dk, dk, w + first * dw, dw};
  }
};

// All pairs of a path in sweeps as long as possible, one of x and y at rest where the mode allows.
template <class Body>
void for_each_sweep(const ProductPath& p, const Body& body) {
  switch (p.mode) {
    case Mode::uuw:
    case Mode::uuu:
      body(Sweep{p.mul1, 0, 1, 0, 1, 0, p.mode == Mode::uuu, 0, 1});
      break;
    case Mode::uvu_pairs:
    case Mode::pairs_w:
      for (int64_t u = 0, pair = 0; u + 1 < p.mul1; pair += p.mul1 - 1 - u, ++u)
        body(Sweep{int(p.mul1 - 1 - u), u, 0, u + 1, 1, pair, 1, pair, 1});
      break;
    default: {
      const int64_t ku = p.mode == Mode::uvu ? 1 : p.mode == Mode::uvuv ? p.mul2 : 0;
      const int64_t kv = p.mode == Mode::uvv || p.mode == Mode::uvuv;
      if (p.mul1 >= p.mul2)
        for (int64_t v = 0; v < p.mul2; ++v) body(Sweep{p.mul1, 0, 1, v, 0, v * kv, ku, v, p.mul2});
      else
        for (int64_t u = 0; u < p.mul1; ++u) body(Sweep{p.mul2, u, 0, 0, 1, u * ku, kv, u * p.mul2, 1});
    }
  }
}

}  // namespace nf
