// The edges of a call: the pairs within the cutoff, and what the network sees of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "cpu/engine/buffer.h"
#include "cpu/engine/engine.h"

namespace nf {

constexpr double kSamePlace = 1e-3;  // Å; MIN_DISTANCE of nequip_fast/data/neighbors.py

// By node, and the gradients that come back. What is cheap to compute again, such as harmonics, is not kept.
template <class T>
struct Edges {
  std::vector<int64_t> ptr;
  Buffer<int32_t> neighbour;
  Buffer<double> vector, reach;  // [3], Å; the length over the cutoff
  int functions = 0;             // of the radial basis
  Buffer<T> basis, basis_slope;  // [functions], and their derivatives by the reach
  Buffer<T> to_y, to_reach;      // [dim_y], [1]

  int64_t count() const { return ptr.back(); }

  double length(int64_t e) const {
    const double* r = vector.get() + 3 * e;
    return std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
  }

  // From the numbers of edges of node i in ptr[i + 1] to where its edges begin, and room for them; dim_y 0: without
  // gradients.
  void reserve(int dim_y) {
    for (size_t i = 1; i < ptr.size(); ++i) ptr[i] += ptr[i - 1];
    neighbour.get(count()), vector.get(3 * count()), reach.get(count());
    basis.get(functions * count()), basis_slope.get(functions * count());
    to_y.get(dim_y * count()), to_reach.get(dim_y ? count() : 0);
  }
};

// By type of centre and neighbour.
struct Cutoffs {
  int types;
  std::vector<double> of_types;

  double operator()(int64_t centre, int64_t neighbour) const { return of_types[centre * types + neighbour]; }
};

template <class T>
struct EdgeSearch {
  const EngineInput& in;
  const Cutoffs& cutoffs;
  const std::optional<RadialBasis>& basis;

  // edges.ptr[i + 1] = number of edges of node i, for begin ≤ i < end; what is wrong, or null
  const char* count(int64_t begin, int64_t end, Edges<T>& edges) const {
    const char* wrong = nullptr;
    for (int64_t i = begin; i < end; ++i)
      each(i, [&](int64_t, const double*, double length, double) {
        if (length < kSamePlace) wrong = "two atoms are at the same place (closer than 0.001 Å); remove one of them";
        ++edges.ptr[i + 1];
      }, [&] { wrong = "a distance is not finite; check the cell and the positions"; });
    return wrong;
  }

  // The edges of these nodes, each node's from near to far by shell, their gradients zero.
  void fill(int64_t begin, int64_t end, int dim_y, Edges<T>& edges) const {
    const int64_t first = edges.ptr[begin], last = edges.ptr[end];
    const int functions = edges.functions;
    std::vector<double> values(functions), slopes(functions);
    std::vector<Found> found;
    for (int64_t i = begin; i < end; ++i) {
      found.clear();
      int64_t at[kShells] = {};  // edges in each shell, then where its next edge goes
      each(i, [&](int64_t p, const double* r, double length, double cutoff) {
        found.push_back({p, {r[0], r[1], r[2]}, length, cutoff});
        ++at[shell(length / cutoff)];
      }, [] {});
      int64_t place = edges.ptr[i];
      for (int64_t& count : at) place += std::exchange(count, place);
      for (const Found& pair : found) {
        const double reach = pair.length / pair.cutoff;
        const int64_t e = at[shell(reach)]++;
        edges.neighbour.get()[e] = in.neighbour[pair.number];
        std::copy_n(pair.vector, 3, edges.vector.get() + 3 * e);
        edges.reach.get()[e] = reach;
        if (functions) (*basis)(reach, values.data(), slopes.data());
        for (int k = 0; k < functions; ++k) {
          edges.basis.get()[e * functions + k] = T(values[k]);
          edges.basis_slope.get()[e * functions + k] = T(slopes[k]);
        }
      }
    }
    if (!dim_y) return;
    std::fill(edges.to_y.get() + first * dim_y, edges.to_y.get() + last * dim_y, T(0));
    std::fill(edges.to_reach.get() + first, edges.to_reach.get() + last, T(0));
  }

 private:
  static constexpr int kShells = 32;
  static int shell(double reach) { return std::min(int(reach * kShells), kShells - 1); }

  struct Found {
    int64_t number;  // of the pair
    double vector[3], length, cutoff;
  };

  // body(pair, vector, length, cutoff) for the pairs of node i within the cutoff, failed() where there is no distance
  template <class Body, class Failed>
  void each(int64_t i, const Body& body, const Failed& failed) const {
    const double* cell = in.cells + 9 * in.structure[i];
    for (int64_t p = in.ptr[i]; p < in.ptr[i + 1]; ++p) {
      const double *from = in.positions + 3 * i, *to = in.positions + 3 * in.neighbour[p];
      const int32_t* n = in.shift + 3 * p;
      double r[3];
      for (int c = 0; c < 3; ++c) r[c] = to[c] - from[c] + n[0] * cell[c] + n[1] * cell[3 + c] + n[2] * cell[6 + c];
      const double square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
      const double cutoff = cutoffs(in.types[i], in.types[in.neighbour[p]]);
      if (square < cutoff * cutoff) body(p, r, std::sqrt(square), cutoff);
      else if (!(square >= 0)) failed();
    }
  }
};

}  // namespace nf
