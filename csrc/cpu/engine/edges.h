// The edges of a call: the pairs within the cutoff, and what the network sees of them.
#pragma once

#include <cmath>
#include <vector>

#include "cpu/engine/buffer.h"
#include "cpu/engine/engine.h"
#include "cpu/engine/kernels.h"
#include "cpu/spherical_harmonics/harmonics.h"

namespace nf {

constexpr double kSamePlace = 1e-3;  // Å; MIN_DISTANCE of nequip_fast/data/neighbors.py

// By node, and the gradients that come back.
template <class T>
struct Edges {
  std::vector<int64_t> ptr;
  Buffer<int64_t> neighbour;
  Buffer<double> vector;                    // [3]
  Buffer<T> direction, y;                   // [3], as `vector`; [dim_y]
  Buffer<Interval<T>> at;
  Buffer<T> to_y, to_length, to_direction;  // [dim_y], [1], [3]

  int64_t count() const { return ptr.back(); }

  // From the numbers of edges of node i in ptr[i + 1] to where its edges begin, and room for them.
  void reserve(int dim_y) {
    for (size_t i = 1; i < ptr.size(); ++i) ptr[i] += ptr[i - 1];
    neighbour.get(count()), vector.get(3 * count()), direction.get(3 * count()), y.get(dim_y * count());
    at.get(count()), to_y.get(dim_y * count()), to_length.get(count()), to_direction.get(3 * count());
  }
};

// Cutoffs by type of centre and neighbour, and the knots of the radial tables between 0 and the cutoff.
struct Radii {
  int types, intervals;
  std::vector<double> cutoff;

  double cutoff_of(int64_t centre, int64_t neighbour) const { return cutoff[centre * types + neighbour]; }

  template <class T>
  Interval<T> interval(double length, double cutoff) const {
    const double x = length / cutoff * intervals;
    const int64_t knot = std::min<int64_t>(int64_t(x), intervals - 1);
    const double t = x - double(knot), s = 1 - t, by_length = intervals / cutoff;
    return {knot,
            {T(t * s * s), T(t * t * (1 + 2 * s)), T(-t * t * s)},
            {T((1 - 3 * t) * s * by_length), T(6 * t * s * by_length), T((3 * t - 2) * t * by_length)}};
  }
};

template <class T>
struct EdgeSearch {
  const EngineInput& in;
  const Radii& radii;
  const HarmonicProblem& harmonics;
  const HarmonicKernels<T>& kernels;

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

  void fill(int64_t begin, int64_t end, Edges<T>& edges) const {
    const int64_t first = edges.ptr[begin], last = edges.ptr[end];
    int64_t e = first;
    for (int64_t i = begin; i < end; ++i)
      each(i, [&](int64_t p, const double* r, double length, double cutoff) {
        edges.neighbour.get()[e] = in.neighbour[p];
        for (int c = 0; c < 3; ++c) edges.direction.get()[3 * e + c] = T(edges.vector.get()[3 * e + c] = r[c]);
        edges.at.get()[e++] = radii.template interval<T>(length, cutoff);
      }, [] {});
    kernels.harmonics(harmonics, edges.direction.get(), edges.y.get(), first, last);
    std::fill(edges.to_y.get() + first * harmonics.dim(), edges.to_y.get() + last * harmonics.dim(), T(0));
    std::fill(edges.to_length.get() + first, edges.to_length.get() + last, T(0));
  }

 private:
  // body(pair, vector, length, cutoff) for the pairs of node i within the cutoff, failed() where there is no distance
  template <class Body, class Failed>
  void each(int64_t i, const Body& body, const Failed& failed) const {
    const double* cell = in.cells + 9 * in.structure[i];
    for (int64_t p = in.ptr[i]; p < in.ptr[i + 1]; ++p) {
      const double *from = in.positions + 3 * i, *to = in.positions + 3 * in.neighbour[p], *n = in.shift + 3 * p;
      double r[3];
      for (int c = 0; c < 3; ++c) r[c] = to[c] - from[c] + n[0] * cell[c] + n[1] * cell[3 + c] + n[2] * cell[6 + c];
      const double square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
      const double cutoff = radii.cutoff_of(in.types[i], in.types[in.neighbour[p]]);
      if (square < cutoff * cutoff) body(p, r, std::sqrt(square), cutoff);
      else if (!(square >= 0)) failed();
    }
  }
};

}  // namespace nf
