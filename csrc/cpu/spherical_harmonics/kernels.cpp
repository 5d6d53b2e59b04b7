// One vector lane an edge: rows are transposed into [component][lane], computed, and transposed back.
#include <algorithm>

#include "cpu/simd.h"
#include "cpu/spherical_harmonics/harmonics.h"

namespace nf::NF_ISA {
namespace {

constexpr int kMaxDim = (kMaxHarmonicDegree + 1) * (kMaxHarmonicDegree + 1);

template <class T>
struct Columns {
  alignas(64) T at[kMaxDim][kLanes<T>];

  void read(const T* rows, int dim, int count) {
    for (int c = 0; c < dim; ++c) {
      for (int e = 0; e < count; ++e) at[c][e] = rows[int64_t(e) * dim + c];
      for (int e = count; e < kLanes<T>; ++e) at[c][e] = 0;
    }
  }
  void write(T* rows, int dim, int count) const {
    for (int e = 0; e < count; ++e)
      for (int c = 0; c < dim; ++c) rows[int64_t(e) * dim + c] = at[c][e];
  }
  void clear(int dim) { std::fill_n(at[0], dim * kLanes<T>, T(0)); }
  void add(int c, Vec<T> v) { store(at[c], load(at[c]) + v); }
  Vec<T> operator[](int c) const { return load(at[c]); }
};

template <class T>
void harmonics(const HarmonicTables& tables, int l_max, const T* r, T* y, int64_t begin, int64_t end) {
  using V = Vec<T>;
  const int dim = (l_max + 1) * (l_max + 1);
  Columns<T> in, out;
  for (int64_t first = begin; first < end; first += kLanes<T>) {
    const int count = int(std::min<int64_t>(kLanes<T>, end - first));
    in.read(r + first * 3, 3, count);
    const V ys = in[0], zs = in[1], xs = in[2];  // textbook axes: z polar
    const V r2 = xs * xs + ys * ys + zs * zs;
    V cos = V{} + T(1), sin = V{}, on_diagonal = V{} + T(1);
    for (int m = 0; m <= l_max; ++m) {
      if (m > 0) {
        const V previous = cos;
        cos = xs * cos - ys * sin;
        sin = xs * sin + ys * previous;
        on_diagonal *= T(tables.diagonal[m]);
      }
      V below = V{}, legendre = on_diagonal;
      for (int l = m; l <= l_max; ++l) {
        if (l > m) {
          const V next = T(tables.up[l][m]) * (zs * legendre - T(tables.down[l][m]) * r2 * below);
          below = legendre;
          legendre = next;
        }
        store(out.at[l * l + l + m], legendre * cos);
        if (m > 0) store(out.at[l * l + l - m], legendre * sin);
      }
    }
    out.write(y + first * dim, dim, count);
  }
}

// The three contractions differ only in which index of D each operand and the result carry.
template <class T, class Body>
void contract(int dim_a, const T* a, int dim_b, const T* b, int dim_out, T* out, int64_t begin, int64_t end,
              const Body& body) {
  Columns<T> left, right, result;
  for (int64_t first = begin; first < end; first += kLanes<T>) {
    const int count = int(std::min<int64_t>(kLanes<T>, end - first));
    left.read(a + first * dim_a, dim_a, count);
    right.read(b + first * dim_b, dim_b, count);
    result.clear(dim_out);
    body(left, right, result);
    result.write(out + first * dim_out, dim_out, count);
  }
}

template <class T>
void vjp(const std::vector<GradientTerm>& terms, int dim, const T* y, const T* g, T* out, int64_t begin, int64_t end) {
  contract(dim, y, dim, g, 3, out, begin, end, [&](const auto& ys, const auto& gs, auto& result) {
    for (const GradientTerm& t : terms) result.add(t.a, T(t.value) * gs[t.k] * ys[t.j]);
  });
}

template <class T>
void jvp(const std::vector<GradientTerm>& terms, int dim, const T* y, const T* c, T* out, int64_t begin, int64_t end) {
  contract(dim, y, 3, c, dim, out, begin, end, [&](const auto& ys, const auto& cs, auto& result) {
    for (const GradientTerm& t : terms) result.add(t.k, T(t.value) * cs[t.a] * ys[t.j]);
  });
}

template <class T>
void pull(const std::vector<GradientTerm>& terms, int dim, const T* g, const T* c, T* out, int64_t begin, int64_t end) {
  contract(dim, g, 3, c, dim, out, begin, end, [&](const auto& gs, const auto& cs, auto& result) {
    for (const GradientTerm& t : terms) result.add(t.j, T(t.value) * gs[t.k] * cs[t.a]);
  });
}

}  // namespace

template <>
const HarmonicKernels<float>& harmonic_kernels<float>() {
  static const HarmonicKernels<float> kernels{harmonics<float>, vjp<float>, jvp<float>, pull<float>};
  return kernels;
}

template <>
const HarmonicKernels<double>& harmonic_kernels<double>() {
  static const HarmonicKernels<double> kernels{harmonics<double>, vjp<double>, jvp<double>, pull<double>};
  return kernels;
}

}  // namespace nf::NF_ISA
