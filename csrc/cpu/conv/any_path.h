// The two kernels of path_kernels.h for any path: degrees without compiled tables, weights apart in memory (those of
// one edge attribute among several), and none at all. The formulas are explained there.
//
// Here the matrix B, contracted with the harmonics, is a list of entries by rows: of m3 for gather and m1 for gradient,
// the component of the result, which so stays in a register while its row is summed up. path.coupling is sorted so;
// its l1 and m1 are those of the rows, its l3 and m3 of the columns.
#pragma once

#include "cpu/conv/kernels.h"
#include "cpu/simd.h"
#include "unroll.h"

namespace nf::NF_ISA {

inline constexpr int kMaxComponents = 2 * kMaxDegree + 1;

// Some vectors of channels next to each other.
template <class T, int blocks>
struct Channels {
  Vec<T> part[blocks];

  static Channels at(const T* p) {
    Channels c;
    for (int j = 0; j < blocks; ++j) c.part[j] = load(p + j * kLanes<T>);
    return c;
  }
  void to(T* p) const {
    for (int j = 0; j < blocks; ++j) store(p + j * kLanes<T>, part[j]);
  }
  friend Channels operator*(Channels a, const Channels& b) {
    for (int j = 0; j < blocks; ++j) a.part[j] *= b.part[j];
    return a;
  }
  void add(T factor, const Channels& a) {
    for (int j = 0; j < blocks; ++j) part[j] += factor * a.part[j];
  }
  void add(const Channels& a, const Channels& b) {
    for (int j = 0; j < blocks; ++j) part[j] += a.part[j] * b.part[j];
  }
};

// An edge's weights of channels from u on, wherever they stand; `absent` where the path has none.
template <class T, int blocks>
[[gnu::always_inline]] inline Channels<T, blocks> weights(const TileRows<T>& rows, int e, const PathArgs& path, int u,
                                                          T absent) {
  Channels<T, blocks> w{};
  const T *const row = rows.w[e] + path.w, *const ahead = rows.ahead(path)[e] + path.ahead + u;
  if (path.w_stride == 1) {
    unroll<blocks>([&](auto j) {
      w.part[j] = load(row + u + j * kLanes<T>, path.mul - u - j * kLanes<T>);
      __builtin_prefetch(ahead + j * kLanes<T>);
    });
    return w;
  }
  for (int j = 0; j < blocks; ++j, u += kLanes<T>)
    for (int i = 0; i < kLanes<T> && u + i < path.mul; ++i)
      w.part[j][i] = path.w_stride ? row[(u + i) * path.w_stride] : absent;
  return w;
}

template <class T, int blocks>
inline void store_weights(T* row, const PathArgs& path, int u, const Channels<T, blocks>& w) {
  for (int j = 0; path.w_stride && j < blocks; ++j, u += kLanes<T>) {
    if (path.w_stride == 1)
      store(row + path.w + u, w.part[j], path.mul - u);
    else
      for (int i = 0; i < kLanes<T> && u + i < path.mul; ++i) row[path.w + (u + i) * path.w_stride] = w.part[j][i];
  }
}

// b[entry][edge] = c · Σ_m2 C(m1, m2, m3) y[m2][edge]
template <class T>
inline void contract_any(T* b, const T* y, const PathArgs& path) {
  for (int k = 0; k < path.coupling.count; ++k) {
    const Coupling::Entry& entry = path.coupling.entries[k];
    Vec<T> sum{};
    for (int t = entry.first; t < entry.end; ++t) {
      const Coupling::Term& term = path.coupling.terms[t];
      sum += T(term.value * path.coefficient) * load(y + (path.y + term.m2) * kLanes<T>);
    }
    store(b + k * kLanes<T>, sum);
  }
}

// to[row] += Σ_edges Σ_columns B[row, column] · from[column]. The sums of edges next to each other do not wait for one
// another, and share the reading of the list.
template <class T, int edges, int blocks>
[[gnu::always_inline]] inline void multiply(const CouplingView& matrix, const T* b,
                                            const Channels<T, blocks> (&from)[edges][kMaxComponents],
                                            Channels<T, blocks>* to) {
  for (int k = 0; k < matrix.count;) {
    const int row = matrix.entries[k].m1;
    Channels<T, blocks> sums[edges]{};
    sums[0] = to[row];
    for (; k < matrix.count && matrix.entries[k].m1 == row; ++k) {
      const int column = matrix.entries[k].m3;
      unroll<edges>([&](auto e) { sums[e].add(b[k * kLanes<T> + e], from[e][column]); });
    }
    unroll<edges - 1>([&](auto e) { sums[0].add(T(1), sums[e + 1]); });
    to[row] = sums[0];
  }
}

// sum += the messages of the edges first … first + edges − 1
template <class T, bool tangent, int edges, int blocks>
[[gnu::always_inline]] inline void gather_edges(const GatherTile<T>& tile, const PathArgs& path, const T* b, const T* db,
                                                int u, int first, Channels<T, blocks>* sum) {
  using C = Channels<T, blocks>;
  const int n1 = 2 * path.coupling.l3 + 1;
  const int64_t stride = path.x_stride;
  C wx[edges][kMaxComponents], dwx[tangent ? edges : 1][kMaxComponents];
  unroll<edges>([&](auto e) {
    const T* x = tile.at.x[first + e] + path.x + u;
    const C w = weights<T, blocks>(tile.at, first + e, path, u, T(1));
    for (int m1 = 0; m1 < n1; ++m1) wx[e][m1] = w * C::at(x + m1 * stride);
    if constexpr (tangent) {
      const T* dx = tile.tangent.x[first + e] + path.x + u;
      const C dw = weights<T, blocks>(tile.tangent, first + e, path, u, T(0));
      for (int m1 = 0; m1 < n1; ++m1) {
        dwx[e][m1] = w * C::at(dx + m1 * stride);
        dwx[e][m1].add(dw, C::at(x + m1 * stride));
      }
    }
  });
  if constexpr (tangent) {
    multiply(path.coupling, db + first, wx, sum);
    multiply(path.coupling, b + first, dwx, sum);
  } else {
    multiply(path.coupling, b + first, wx, sum);
  }
}

template <class T, bool tangent, int blocks>
void gather_channels(const GatherTile<T>& tile, const PathArgs& path, const T* b, const T* db, int u) {
  using C = Channels<T, blocks>;
  constexpr int at_once = blocks == 4 ? 2 : 4;  // enough sums to keep the processor busy
  const int n3 = 2 * path.coupling.l1 + 1;
  const int64_t out_stride = path.out_stride;
  T* out = tile.out + path.out + u;
  C sum[kMaxComponents];
  for (int m3 = 0; m3 < n3; ++m3) sum[m3] = C::at(out + m3 * out_stride);
  int e = 0;
  for (; e + at_once <= tile.edges; e += at_once) gather_edges<T, tangent, at_once>(tile, path, b, db, u, e, sum);
  for (; e < tile.edges; ++e) gather_edges<T, tangent, 1>(tile, path, b, db, u, e, sum);
  for (int m3 = 0; m3 < n3; ++m3) sum[m3].to(out + m3 * out_stride);
}

template <class T, bool tangent, int blocks>
void gradient_channels(const GradientTile<T>& tile, const PathArgs& path, const T* b, const T* db, int u) {
  using C = Channels<T, blocks>;
  const CouplingView& coupling = path.coupling;
  const int n1 = 2 * coupling.l1 + 1, n3 = 2 * coupling.l3 + 1;
  const int terms = coupling.count ? coupling.entries[coupling.count - 1].end : 0;
  const int64_t stride = path.x_stride, out_stride = path.out_stride;
  const T coefficient = T(path.coefficient);
  C g_of_edge[1][kMaxComponents], bg[kMaxComponents], dbg[kMaxComponents], to_y[kMaxComponents];
  C* const gs = g_of_edge[0];
  for (int e = 0; e < tile.edges; ++e) {
    const T *x = tile.at.x[e] + path.x + u, *g = tile.g[e] + path.out + u;
    const C w = weights<T, blocks>(tile.at, e, path, u, T(1));
    for (int m3 = 0; m3 < n3; ++m3) gs[m3] = C::at(g + m3 * out_stride);
    for (int m1 = 0; m1 < n1; ++m1) bg[m1] = dbg[m1] = to_y[m1] = C{};
    multiply(coupling, b + e, g_of_edge, bg);
    const T* dx = x;
    C to_w{}, dw{};
    if constexpr (tangent) {
      multiply(coupling, db + e, g_of_edge, dbg);
      dx = tile.tangent.x[e] + path.x + u;
      dw = weights<T, blocks>(tile.tangent, e, path, u, T(0));
    }
    for (int m1 = 0; m1 < n1; ++m1) {
      const C xs = C::at(x + m1 * stride), dxs = C::at(dx + m1 * stride);
      C to_x{};
      if constexpr (tangent) {
        to_x.add(dw, bg[m1]);
        to_x.add(w, dbg[m1]);
        to_w.add(xs, dbg[m1]);
        to_y[m1].add(dw, xs);
      } else {
        to_x.add(w, bg[m1]);
      }
      to_w.add(dxs, bg[m1]);
      to_y[m1].add(w, dxs);
      if (!tile.dx) continue;
      T* to = tile.dx[e] + path.x + u + m1 * stride;
      C sum = C::at(to);
      sum.add(T(1), to_x);
      sum.to(to);
    }
    store_weights<T, blocks>(tile.dw[e], path, u, to_w);
    T* const dy = tile.dy + (int64_t(e) * tile.dim_y + path.y) * kLanes<T>;
    for (int t = 0; t < terms; ++t) {  // all terms in one loop: those of one entry are too few to predict how many
      const Coupling::Term& term = coupling.terms[t];
      Vec<T> product{};
      for (int j = 0; j < blocks; ++j) product += to_y[term.m1].part[j] * gs[term.m3].part[j];
      T* to = dy + term.m2 * kLanes<T>;
      store(to, load(to) + T(term.value) * coefficient * product);
    }
  }
}

// B, then body(blocks, b, db, u) for all channels, several vectors at a time as long as there are so many.
template <class T, bool tangent, class Body>
inline void with_matrix(const Tile<T>& tile, const PathArgs& path, const Body& body) {
  T *const b = tile.scratch, *const db = b + path.coupling.count * kLanes<T>;
  contract_any(b, tile.at.y, path);
  if constexpr (tangent) contract_any(db, tile.tangent.y, path);
  const int stride = padded<T>(path.mul);
  int u = 0;
  if constexpr (kVectorBytes == 64)
    for (; u + 4 * kLanes<T> <= stride; u += 4 * kLanes<T>) body(Index<4>{}, b, db, u);
  for (; u + 2 * kLanes<T> <= stride; u += 2 * kLanes<T>) body(Index<2>{}, b, db, u);
  if (u < stride) body(Index<1>{}, b, db, u);
}

template <class T, bool tangent>
void gather_any(const GatherTile<T>& tile, const PathArgs& path) {
  with_matrix<T, tangent>(tile, path, [&](auto blocks, const T* b, const T* db, int u) {
    gather_channels<T, tangent, blocks.value>(tile, path, b, db, u);
  });
}

template <class T, bool tangent>
void gradient_any(const GradientTile<T>& tile, const PathArgs& path) {
  with_matrix<T, tangent>(tile, path, [&](auto blocks, const T* b, const T* db, int u) {
    gradient_channels<T, tangent, blocks.value>(tile, path, b, db, u);
  });
}

}  // namespace nf::NF_ISA
