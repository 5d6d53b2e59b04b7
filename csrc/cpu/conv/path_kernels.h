// The two kernels of one path, with the sparsity of its Clebsch-Gordan matrix unrolled at compile time.
#pragma once

#include <utility>

#include "cg/path.h"
#include "cpu/conv/kernels.h"
#include "cpu/simd.h"

namespace nf::NF_ISA {

template <int i>
struct Index {
  static constexpr int value = i;
  constexpr operator int() const { return i; }
};

template <int n, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (f(Index<i>{}), ...); }(std::make_integer_sequence<int, n>{});
}

template <class T>
constexpr int padded(int mul) {
  return (mul + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

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

// out[m3] += Σ_edges B[m1, m3] · w · x[m1], the sums of one block of channels held in registers
template <class T, int l1, int l2, int l3>
void gather(const GatherTile<T>& tile, const PathArgs& path) {
  using P = Pattern<l1, l2, l3>;
  using V = Vec<T>;
  alignas(64) T b[P::entries][kLanes<T>];
  contract_with_harmonics<T, P>(b, tile.y + path.y * kLanes<T>, T(path.coefficient));
  const int stride = padded<T>(path.mul);
  for (int u = 0; u < path.mul; u += kLanes<T>) {
    T* out = tile.out + path.out + u;
    V sum[P::n3];
    unroll<P::n3>([&](auto m3) { sum[m3] = load(out + m3 * stride); });
    for (int e = 0; e < tile.edges; ++e) {
      const T* x = tile.x[e] + path.x + u;
      const V w = load(tile.w[e] + path.w + u, path.mul - u);
      __builtin_prefetch(tile.next_w[e] + path.w + u);
      V wx[P::n1];
      unroll<P::n1>([&](auto m1) { wx[m1] = w * load(x + m1 * stride); });
      unroll<P::entries>([&](auto k) { sum[P::at.m3[k.value]] += b[k][e] * wx[P::at.m1[k.value]]; });
    }
    unroll<P::n3>([&](auto m3) { store(out + m3 * stride, sum[m3]); });
  }
}

// dw = Σ x[m1] B[m1, m3] g[m3];  dy[m2] += c · Σ_channels w · C(m1, m2, m3) x[m1] g[m3]
template <class T, int l1, int l2, int l3>
void edge(const EdgeTile<T>& tile, const PathArgs& path) {
  using P = Pattern<l1, l2, l3>;
  using V = Vec<T>;
  alignas(64) T b[P::entries][kLanes<T>];
  const T coefficient = T(path.coefficient);
  contract_with_harmonics<T, P>(b, tile.y + path.y * kLanes<T>, coefficient);
  const int stride = padded<T>(path.mul);
  for (int e = 0; e < tile.edges; ++e) {
    T* partial = tile.dy + (int64_t(e) * tile.dim_y + path.y) * kLanes<T>;
    V dy[P::n2];
    unroll<P::n2>([&](auto m2) { dy[m2] = load(partial + m2 * kLanes<T>); });
    for (int u = 0; u < path.mul; u += kLanes<T>) {
      const T* x = tile.x[e] + path.x + u;
      const T* g = tile.g + path.out + u;
      const int channels = path.mul - u;
      const V w = load(tile.w[e] + path.w + u, channels) * coefficient;
      __builtin_prefetch(tile.next_w[e] + path.w + u);
      V xs[P::n1], gs[P::n3], bg[P::n1];
      unroll<P::n1>([&](auto m1) { xs[m1] = load(x + m1 * stride), bg[m1] = V{}; });
      unroll<P::n3>([&](auto m3) { gs[m3] = load(g + m3 * stride); });
      unroll<P::entries>([&](auto k) { bg[P::at.m1[k.value]] += b[k][e] * gs[P::at.m3[k.value]]; });
      V dw{};
      unroll<P::n1>([&](auto m1) { dw += xs[m1] * bg[m1]; });
      store(tile.dw[e] + path.w + u, dw, channels);
      unroll<P::n1>([&](auto m1) { xs[m1] *= w; });
      unroll<P::entries>([&](auto k) {
        constexpr int first = P::at.first[k.value], count = P::at.first[k.value + 1] - first;
        const V product = xs[P::at.m1[k.value]] * gs[P::at.m3[k.value]];
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
      if constexpr (Cg<l1, l2.value, l3.value>::count > 0) {
        kernels.gather[l1][l2][l3] = gather<T, l1, l2.value, l3.value>;
        kernels.edge[l1][l2][l3] = edge<T, l1, l2.value, l3.value>;
      }
    });
  });
}

}  // namespace nf::NF_ISA
