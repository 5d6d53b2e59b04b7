// The two kernels of one path, with the sparsity of its Clebsch-Gordan matrix unrolled at compile time.
//
// With a tangent they compute the derivative along (dx, dy, dw): B being linear in y, every product of x, B and w becomes
// the sum of three, one for each factor replaced by its tangent.
#pragma once

#include "cg/path.h"
#include "cpu/conv/kernels.h"
#include "cpu/unroll.h"

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

// The part of gather for `blocks` vectors of channels from u on, their sums held in registers; each entry of B is read
// once for all of them.
template <class T, class P, int blocks>
[[gnu::always_inline]] inline void gather_blocks(const GatherTile<T>& tile, const PathArgs& path,
                                                 const T (*b)[kLanes<T>], int stride, int u) {
  using V = Vec<T>;
  T* out = tile.out + path.out + u;
  V sum[P::n3][blocks];
  unroll<P::n3>([&](auto m3) {
    unroll<blocks>([&](auto j) { sum[m3][j] = load(out + m3 * stride + j * kLanes<T>); });
  });
  for (int e = 0; e < tile.edges; ++e) {
    V wx[P::n1][blocks];
    unroll<blocks>([&](auto j) {
      const int at = u + j * kLanes<T>;
      const T* x = tile.at.x[e] + path.x + at;
      const V w = load(tile.at.w[e] + path.w + at, path.mul - at);
      __builtin_prefetch(tile.at.next_w[e] + path.w + at);
      unroll<P::n1>([&](auto m1) { wx[m1][j] = w * load(x + m1 * stride); });
    });
    unroll<P::entries>([&](auto k) {
      unroll<blocks>([&](auto j) { sum[P::at.m3[k.value]][j] += b[k][e] * wx[P::at.m1[k.value]][j]; });
    });
  }
  unroll<P::n3>([&](auto m3) {
    unroll<blocks>([&](auto j) { store(out + m3 * stride + j * kLanes<T>, sum[m3][j]); });
  });
}

// out[m3] += Σ_edges B[m1, m3] · w · x[m1]
template <class T, int l1, int l2, int l3>
void gather(const GatherTile<T>& tile, const PathArgs& path) {
  using P = Pattern<l1, l2, l3>;
  constexpr int spare = (kVectorBytes == 64 ? 32 : 16) - 2, of_a_block = P::n1 + P::n3;  // registers
  constexpr int blocks = 4 * of_a_block <= spare ? 4 : 2 * of_a_block <= spare ? 2 : 1;
  alignas(64) T b[P::entries][kLanes<T>];
  contract_with_harmonics<T, P>(b, tile.at.y + path.y * kLanes<T>, T(path.coefficient));
  const int stride = padded<T>(path.mul);
  int u = 0;
  for (; u + blocks * kLanes<T> <= stride; u += blocks * kLanes<T>) gather_blocks<T, P, blocks>(tile, path, b, stride, u);
  if constexpr (blocks > 2)
    for (; u + 2 * kLanes<T> <= stride; u += 2 * kLanes<T>) gather_blocks<T, P, 2>(tile, path, b, stride, u);
  if constexpr (blocks > 1)
    for (; u < stride; u += kLanes<T>) gather_blocks<T, P, 1>(tile, path, b, stride, u);
}

// out[m3] += Σ_edges dB[m1, m3] · w · x[m1] + B[m1, m3] · (dw · x[m1] + w · dx[m1])
template <class T, int l1, int l2, int l3>
void gather_tangent(const GatherTile<T>& tile, const PathArgs& path) {
  using P = Pattern<l1, l2, l3>;
  using V = Vec<T>;
  alignas(64) T b[P::entries][kLanes<T>], db[P::entries][kLanes<T>];
  contract_with_harmonics<T, P>(b, tile.at.y + path.y * kLanes<T>, T(path.coefficient));
  contract_with_harmonics<T, P>(db, tile.tangent.y + path.y * kLanes<T>, T(path.coefficient));
  const int stride = padded<T>(path.mul);
  for (int u = 0; u < path.mul; u += kLanes<T>) {
    const int channels = path.mul - u;
    T* out = tile.out + path.out + u;
    V sum[P::n3];
    unroll<P::n3>([&](auto m3) { sum[m3] = load(out + m3 * stride); });
    for (int e = 0; e < tile.edges; ++e) {
      const T *x = tile.at.x[e] + path.x + u, *dx = tile.tangent.x[e] + path.x + u;
      const V w = load(tile.at.w[e] + path.w + u, channels), dw = load(tile.tangent.w[e] + path.w + u, channels);
      __builtin_prefetch(tile.at.next_w[e] + path.w + u);
      __builtin_prefetch(tile.tangent.next_w[e] + path.w + u);
      V wx[P::n1], dwx[P::n1];
      unroll<P::n1>([&](auto m1) {
        const V xs = load(x + m1 * stride);
        wx[m1] = w * xs;
        dwx[m1] = w * load(dx + m1 * stride) + dw * xs;
      });
      unroll<P::entries>([&](auto k) { sum[P::at.m3[k.value]] += db[k][e] * wx[P::at.m1[k.value]]; });
      unroll<P::entries>([&](auto k) { sum[P::at.m3[k.value]] += b[k][e] * dwx[P::at.m1[k.value]]; });
    }
    unroll<P::n3>([&](auto m3) { store(out + m3 * stride, sum[m3]); });
  }
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
  const int stride = padded<T>(path.mul);
  for (int e = 0; e < tile.edges; ++e) {
    T* partial = tile.dy + (int64_t(e) * tile.dim_y + path.y) * kLanes<T>;
    V dy[P::n2];
    unroll<P::n2>([&](auto m2) { dy[m2] = load(partial + m2 * kLanes<T>); });
    for (int u = 0; u < path.mul; u += kLanes<T>) {
      const int channels = path.mul - u;
      const T *x = tile.at.x[e] + path.x + u, *g = tile.g[e] + path.out + u;
      const V w = load(tile.at.w[e] + path.w + u, channels);
      __builtin_prefetch(tile.at.next_w[e] + path.w + u);
      V xs[P::n1], gs[P::n3], bg[P::n1], to_x[P::n1], to_y[P::n1], to_w{};
      unroll<P::n1>([&](auto m1) { xs[m1] = load(x + m1 * stride), bg[m1] = V{}; });
      unroll<P::n3>([&](auto m3) { gs[m3] = load(g + m3 * stride); });
      unroll<P::entries>([&](auto k) { bg[P::at.m1[k.value]] += b[k][e] * gs[P::at.m3[k.value]]; });
      if constexpr (tangent) {
        const T* dx = tile.tangent.x[e] + path.x + u;
        const V dw = load(tile.tangent.w[e] + path.w + u, channels);
        __builtin_prefetch(tile.tangent.next_w[e] + path.w + u);
        V dbg[P::n1];
        unroll<P::n1>([&](auto m1) { dbg[m1] = V{}; });
        unroll<P::entries>([&](auto k) { dbg[P::at.m1[k.value]] += db[k][e] * gs[P::at.m3[k.value]]; });
        unroll<P::n1>([&](auto m1) {
          const V dxs = load(dx + m1 * stride);
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
      T* const to = tile.dw[e] + path.w + u;
      tile.stream_w ? stream(to, to_w) : store(to, to_w, channels);
      if (tile.dx)
        unroll<P::n1>([&](auto m1) {
          T* to = tile.dx + path.x + u + m1 * stride;
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
    }
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
