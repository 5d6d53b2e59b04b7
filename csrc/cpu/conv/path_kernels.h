// The two kernels of one path, with the sparsity of its Clebsch-Gordan matrix unrolled at compile time.
//
// With a tangent they compute the derivative along (dx, dy, dw): B being linear in y, every product of x, B and w becomes
// the sum of three, one for each factor replaced by its tangent.
#pragma once

#include <type_traits>

#include "cg/path.h"
#include "cpu/conv/kernels.h"
#include "cpu/simd.h"
#include "unroll.h"

namespace nf::NF_ISA {

// b[entry][edge] = c · Σ_m2 C(m1, m2, m3) y[m2][edge]
template <class T, class P>
[[gnu::always_inline]] inline void contract_with_harmonics(T (*b)[kLanes<T>], const T* y, T coefficient) {
  unroll<P::entries>([&](auto entry) {
    constexpr int first = P::at.first[entry.value], count = P::at.first[entry.value + 1] - first;
    Vec<T> sum{};
    unroll<count>([&](auto t) {
      constexpr int term = first + t.value;
      sum += T(P::Table::value[term]) * load(y + P::Table::m2[term] * kLanes<T>);
    });
    store(b[entry], sum * coefficient);
  });
}

// body(blocks, whole, u) for all `mul` channels: `most` vectors from channel u on at a time as long as there are so many,
// then fewer; where mul is no multiple of a vector, a last one that is not whole. Constants, so that a kernel's addresses
// are a row, a multiple of the stride and a displacement, and only the last vector needs a mask: of a narrow path the
// bookkeeping took longer than the arithmetic.
template <class T, int most, class Body>
[[gnu::always_inline]] inline void over_channels(int mul, const Body& body) {
  constexpr std::bool_constant<true> whole;
  int u = 0;
  for (; u + most * kLanes<T> <= mul; u += most * kLanes<T>) body(Index<most>{}, whole, u);
  if constexpr (most > 2)
    for (; u + 2 * kLanes<T> <= mul; u += 2 * kLanes<T>) body(Index<2>{}, whole, u);
  if constexpr (most > 1)
    for (; u + kLanes<T> <= mul; u += kLanes<T>) body(Index<1>{}, whole, u);
  if (u < mul) body(Index<1>{}, std::bool_constant<false>{}, u);
}

// The part of gather for `blocks` vectors of channels from u on, their sums held in registers; each entry of B is read
// once for all of them. A single sum is multiplied by w when it is done, instead of every component of x.
template <class T, class P, int blocks, bool whole>
[[gnu::always_inline]] inline void gather_blocks(const GatherTile<T>& tile, const PathArgs& path,
                                                 const T (*b)[kLanes<T>], int u) {
  using V = Vec<T>;
  const int64_t x_stride = path.x_stride, out_stride = path.out_stride;
  const int64_t at_x = path.x + u, at_w = path.w + u, at_ahead = path.ahead + u;
  const T* const* const rows_ahead = tile.at.ahead(path);
  T* const out = tile.out + path.out + u;
  V sum[P::n3][blocks];
  unroll<P::n3>([&](auto m3) {
    unroll<blocks>([&](auto j) { sum[m3][j] = load(out + m3 * out_stride + j * kLanes<T>); });
  });
  int e = 0;
  do {  // a tile has an edge at least; a loop that may be empty would keep a second copy of the sums
    const T *const x = tile.at.x[e] + at_x, *const w = tile.at.w[e] + at_w, *const ahead = rows_ahead[e] + at_ahead;
    const auto xs = [&](auto m1, auto j) { return load(x + m1 * x_stride + j * kLanes<T>); };
    V ws[blocks];
    unroll<blocks>([&](auto j) {
      ws[j] = load<whole>(w + j * kLanes<T>, path.mul - u);
      __builtin_prefetch(ahead + j * kLanes<T>);
    });
    if constexpr (P::n3 == 1) {
      V bx[blocks];
      unroll<blocks>([&](auto j) { bx[j] = b[0][e] * xs(Index<P::at.m1[0]>{}, j); });
      unroll<P::entries - 1>([&](auto k) {
        unroll<blocks>([&](auto j) { bx[j] += b[k + 1][e] * xs(Index<P::at.m1[k.value + 1]>{}, j); });
      });
      unroll<blocks>([&](auto j) { sum[0][j] += ws[j] * bx[j]; });
    } else {
      V wx[P::n1][blocks];
      unroll<P::n1>([&](auto m1) { unroll<blocks>([&](auto j) { wx[m1][j] = ws[j] * xs(m1, j); }); });
      unroll<P::entries>([&](auto k) {
        unroll<blocks>([&](auto j) { sum[P::at.m3[k.value]][j] += b[k][e] * wx[P::at.m1[k.value]][j]; });
      });
    }
  } while (++e < tile.edges);
  unroll<P::n3>([&](auto m3) {
    unroll<blocks>([&](auto j) { store(out + m3 * out_stride + j * kLanes<T>, sum[m3][j]); });
  });
}

// out[m3] += Σ_edges B[m1, m3] · w · x[m1]
template <class T, int l1, int l2, int l3>
void gather(const GatherTile<T>& tile, const PathArgs& path) {
  using P = Pattern<l1, l2, l3>;
  constexpr int spare = (kVectorBytes == 64 ? 32 : 16) - 2, of_a_block = P::n1 + P::n3;  // registers
  constexpr int most = 4 * of_a_block <= spare ? 4 : 2 * of_a_block <= spare ? 2 : 1;
  alignas(64) T b[P::entries][kLanes<T>];
  contract_with_harmonics<T, P>(b, tile.at.y + path.y * kLanes<T>, T(path.coefficient));
  over_channels<T, most>(path.mul, [&](auto blocks, auto whole, int u) {
    gather_blocks<T, P, blocks.value, whole.value>(tile, path, b, u);
  });
}

// out[m3] += Σ_edges dB[m1, m3] · w · x[m1] + B[m1, m3] · (dw · x[m1] + w · dx[m1])
template <class T, int l1, int l2, int l3>
void gather_tangent(const GatherTile<T>& tile, const PathArgs& path) {
  using P = Pattern<l1, l2, l3>;
  using V = Vec<T>;
  alignas(64) T b[P::entries][kLanes<T>], db[P::entries][kLanes<T>];
  contract_with_harmonics<T, P>(b, tile.at.y + path.y * kLanes<T>, T(path.coefficient));
  contract_with_harmonics<T, P>(db, tile.tangent.y + path.y * kLanes<T>, T(path.coefficient));
  const int64_t x_stride = path.x_stride, out_stride = path.out_stride;
  const T *const *const w_ahead = tile.at.ahead(path), *const *const dw_ahead = tile.tangent.ahead(path);
  over_channels<T, 1>(path.mul, [&](auto, auto whole, int u) {
    const int64_t at_x = path.x + u, at_w = path.w + u, at_ahead = path.ahead + u;
    const int channels = path.mul - u;
    T* const out = tile.out + path.out + u;
    V sum[P::n3];
    unroll<P::n3>([&](auto m3) { sum[m3] = load(out + m3 * out_stride); });
    int e = 0;
    do {
      const T *const x = tile.at.x[e] + at_x, *const dx = tile.tangent.x[e] + at_x;
      const V w = load<whole.value>(tile.at.w[e] + at_w, channels);
      const V dw = load<whole.value>(tile.tangent.w[e] + at_w, channels);
      __builtin_prefetch(w_ahead[e] + at_ahead);
      __builtin_prefetch(dw_ahead[e] + at_ahead);
      V wx[P::n1], dwx[P::n1];
      unroll<P::n1>([&](auto m1) {
        const V xs = load(x + m1 * x_stride);
        wx[m1] = w * xs;
        dwx[m1] = w * load(dx + m1 * x_stride) + dw * xs;
      });
      unroll<P::entries>([&](auto k) { sum[P::at.m3[k.value]] += db[k][e] * wx[P::at.m1[k.value]]; });
      unroll<P::entries>([&](auto k) { sum[P::at.m3[k.value]] += b[k][e] * dwx[P::at.m1[k.value]]; });
    } while (++e < tile.edges);
    unroll<P::n3>([&](auto m3) { store(out + m3 * out_stride, sum[m3]); });
  });
}

// With Bg[m1] = Σ B[m1, m3] g[m3]:  dx[m1] += w · Bg[m1];  dw = Σ x[m1] Bg[m1];
// dy[m2] += c · Σ_channels w · C(m1, m2, m3) x[m1] g[m3]
template <class T, int l1, int l2, int l3, bool tangent>
void gradient(const GradientTile<T>& tile, const PathArgs& path) {
  using P = Pattern<l1, l2, l3>;
  using V = Vec<T>;
  alignas(64) T b[P::entries][kLanes<T>], db[tangent ? P::entries : 1][kLanes<T>];
  const T coefficient = T(path.coefficient);
  contract_with_harmonics<T, P>(b, tile.at.y + path.y * kLanes<T>, coefficient);
  if constexpr (tangent) contract_with_harmonics<T, P>(db, tile.tangent.y + path.y * kLanes<T>, coefficient);
  const int64_t x_stride = path.x_stride, out_stride = path.out_stride;
  for (int e = 0; e < tile.edges; ++e) {
    T* const partial = tile.dy + (int64_t(e) * tile.dim_y + path.y) * kLanes<T>;
    V dy[P::n2];
    unroll<P::n2>([&](auto m2) { dy[m2] = load(partial + m2 * kLanes<T>); });
    const T *const x_row = tile.at.x[e] + path.x, *const g_row = tile.g[e] + path.out;
    const T *const w_row = tile.at.w[e] + path.w, *const w_ahead = tile.at.ahead(path)[e] + path.ahead;
    T *const dw_row = tile.dw[e] + path.w, *const dx_row = tile.dx ? tile.dx[e] + path.x : nullptr;
    over_channels<T, 1>(path.mul, [&](auto, auto whole, int u) {
      const int channels = path.mul - u;
      const T *const x = x_row + u, *const g = g_row + u;
      const V w = load<whole.value>(w_row + u, channels);
      __builtin_prefetch(w_ahead + u);
      V xs[P::n1], gs[P::n3], bg[P::n1], to_x[P::n1], to_y[P::n1], to_w{};
      unroll<P::n1>([&](auto m1) { xs[m1] = load(x + m1 * x_stride), bg[m1] = V{}; });
      unroll<P::n3>([&](auto m3) { gs[m3] = load(g + m3 * out_stride); });
      unroll<P::entries>([&](auto k) { bg[P::at.m1[k.value]] += b[k][e] * gs[P::at.m3[k.value]]; });
      if constexpr (tangent) {
        const T* const dx = tile.tangent.x[e] + path.x + u;
        const V dw = load<whole.value>(tile.tangent.w[e] + path.w + u, channels);
        __builtin_prefetch(tile.tangent.ahead(path)[e] + path.ahead + u);
        V dbg[P::n1];
        unroll<P::n1>([&](auto m1) { dbg[m1] = V{}; });
        unroll<P::entries>([&](auto k) { dbg[P::at.m1[k.value]] += db[k][e] * gs[P::at.m3[k.value]]; });
        unroll<P::n1>([&](auto m1) {
          const V dxs = load(dx + m1 * x_stride);
          to_x[m1] = w * dbg[m1] + dw * bg[m1];
          to_y[m1] = (w * dxs + dw * xs[m1]) * coefficient;
          to_w += xs[m1] * dbg[m1] + dxs * bg[m1];
        });
      } else {
        unroll<P::n1>([&](auto m1) {
          to_x[m1] = w * bg[m1];
          to_y[m1] = (w * coefficient) * xs[m1];
          to_w += xs[m1] * bg[m1];
        });
      }
      tile.stream_w ? stream(dw_row + u, to_w) : store<whole.value>(dw_row + u, to_w, channels);
      if (dx_row)
        unroll<P::n1>([&](auto m1) {
          T* const to = dx_row + u + m1 * x_stride;
          store(to, load(to) + to_x[m1]);
        });
      unroll<P::entries>([&](auto k) {
        constexpr int first = P::at.first[k.value], count = P::at.first[k.value + 1] - first;
        const V product = to_y[P::at.m1[k.value]] * gs[P::at.m3[k.value]];
        unroll<count>([&](auto t) {
          constexpr int term = first + t.value;
          dy[P::Table::m2[term]] += T(P::Table::value[term]) * product;
        });
      });
    });
    unroll<P::n2>([&](auto m2) { store(partial + m2 * kLanes<T>, dy[m2]); });
  }
}

// Enter the kernels of every (l2, l3) that l1 couples to.
template <class T, int l1>
void fill(ConvKernels<T>& kernels) {
  unroll<kMaxL + 1>([&](auto l2) {
    unroll<kMaxL + 1>([&](auto l3) {
      constexpr int a = l1, b = l2.value, c = l3.value;
      if constexpr (Cg<a, b, c>::count > 0)
        kernels.paths[a][b][c] = {{gather<T, a, b, c>, gather_tangent<T, a, b, c>},
                                  {gradient<T, a, b, c, false>, gradient<T, a, b, c, true>}};
    });
  });
}

}  // namespace nf::NF_ISA
