// The two kernels of path_kernels.h for any path: degrees without compiled tables, weights apart in memory (those of
// one edge attribute among several), and none at all. The formulas are explained there.
#pragma once

#include "cpu/conv/kernels.h"
#include "cpu/simd.h"

namespace nf::NF_ISA {

inline constexpr int kMaxComponents = 2 * kMaxDegree + 1;

// The weights of channels u, u + 1, …, wherever they stand; `absent` where the path has none.
template <class T>
inline Vec<T> load_weights(const T* row, const PathArgs& path, int u, T absent) {
  if (path.w_stride == 1) return load(row + path.w + u, path.mul - u);
  Vec<T> v{};
  for (int i = 0; i < kLanes<T> && u + i < path.mul; ++i)
    v[i] = path.w_stride ? row[path.w + (u + i) * path.w_stride] : absent;
  return v;
}

template <class T>
inline void store_weights(T* row, const PathArgs& path, int u, Vec<T> v) {
  if (path.w_stride == 1) return store(row + path.w + u, v, path.mul - u);
  for (int i = 0; path.w_stride && i < kLanes<T> && u + i < path.mul; ++i) row[path.w + (u + i) * path.w_stride] = v[i];
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

// The tangent of w·x where there is one, else w·x itself.
template <class T, bool tangent>
inline void weighted(const Tile<T>& tile, const PathArgs& path, int e, int u, int stride, Vec<T>* wx, Vec<T>* dwx) {
  const int n1 = 2 * path.coupling.l1 + 1;
  const T* x = tile.at.x[e] + path.x + u;
  const Vec<T> w = load_weights(tile.at.w[e], path, u, T(1));
  for (int m1 = 0; m1 < n1; ++m1) wx[m1] = w * load(x + m1 * stride);
  if constexpr (tangent) {
    const T* dx = tile.tangent.x[e] + path.x + u;
    const Vec<T> dw = load_weights(tile.tangent.w[e], path, u, T(0));
    for (int m1 = 0; m1 < n1; ++m1) dwx[m1] = w * load(dx + m1 * stride) + dw * load(x + m1 * stride);
  }
}

template <class T, bool tangent>
void gather_any(const GatherTile<T>& tile, const PathArgs& path) {
  const CouplingView& coupling = path.coupling;
  T *const b = tile.scratch, *const db = b + coupling.count * kLanes<T>;
  contract_any(b, tile.at.y, path);
  if constexpr (tangent) contract_any(db, tile.tangent.y, path);
  const int stride = padded<T>(path.mul), n3 = 2 * coupling.l3 + 1;
  Vec<T> wx[kMaxComponents], dwx[kMaxComponents], sum[kMaxComponents];
  for (int u = 0; u < path.mul; u += kLanes<T>) {
    T* out = tile.out + path.out + u;
    for (int m3 = 0; m3 < n3; ++m3) sum[m3] = load(out + m3 * stride);
    for (int e = 0; e < tile.edges; ++e) {
      weighted<T, tangent>(tile, path, e, u, stride, wx, dwx);
      for (int k = 0; k < coupling.count; ++k) {
        const auto [m1, m3, first, end] = coupling.entries[k];
        if constexpr (tangent)
          sum[m3] += b[k * kLanes<T> + e] * dwx[m1] + db[k * kLanes<T> + e] * wx[m1];
        else
          sum[m3] += b[k * kLanes<T> + e] * wx[m1];
      }
    }
    for (int m3 = 0; m3 < n3; ++m3) store(out + m3 * stride, sum[m3]);
  }
}

template <class T, bool tangent>
void gradient_any(const GradientTile<T>& tile, const PathArgs& path) {
  const CouplingView& coupling = path.coupling;
  T *const b = tile.scratch, *const db = b + coupling.count * kLanes<T>;
  contract_any(b, tile.at.y, path);
  if constexpr (tangent) contract_any(db, tile.tangent.y, path);
  const int stride = padded<T>(path.mul), n1 = 2 * coupling.l1 + 1;
  Vec<T> wx[kMaxComponents], dwx[kMaxComponents], bg[kMaxComponents], dbg[kMaxComponents];
  for (int e = 0; e < tile.edges; ++e) {
    T* const dy = tile.dy + (int64_t(e) * tile.dim_y + path.y) * kLanes<T>;
    for (int u = 0; u < path.mul; u += kLanes<T>) {
      const T *x = tile.at.x[e] + path.x + u, *g = tile.g[e] + path.out + u;
      weighted<T, tangent>(tile, path, e, u, stride, wx, dwx);
      const Vec<T>* const to_y = tangent ? dwx : wx;
      for (int m1 = 0; m1 < n1; ++m1) bg[m1] = dbg[m1] = Vec<T>{};
      for (int k = 0; k < coupling.count; ++k) {
        const Coupling::Entry& entry = coupling.entries[k];
        const Vec<T> g_m3 = load(g + entry.m3 * stride);
        bg[entry.m1] += b[k * kLanes<T> + e] * g_m3;
        if constexpr (tangent) dbg[entry.m1] += db[k * kLanes<T> + e] * g_m3;
        const Vec<T> product = to_y[entry.m1] * g_m3 * T(path.coefficient);
        for (int t = entry.first; t < entry.end; ++t) {
          T* to = dy + coupling.terms[t].m2 * kLanes<T>;
          store(to, load(to) + T(coupling.terms[t].value) * product);
        }
      }
      const Vec<T> w = load_weights(tile.at.w[e], path, u, T(1));
      Vec<T> to_w{}, dw{};
      const T* dx = nullptr;
      if constexpr (tangent) {
        dx = tile.tangent.x[e] + path.x + u;
        dw = load_weights(tile.tangent.w[e], path, u, T(0));
      }
      for (int m1 = 0; m1 < n1; ++m1) {
        Vec<T> to_x;
        if constexpr (tangent) {
          to_x = w * dbg[m1] + dw * bg[m1];
          to_w += load(x + m1 * stride) * dbg[m1] + load(dx + m1 * stride) * bg[m1];
        } else {
          to_x = w * bg[m1];
          to_w += load(x + m1 * stride) * bg[m1];
        }
        if (!tile.dx) continue;
        T* to = tile.dx + path.x + u + m1 * stride;
        store(to, load(to) + to_x);
      }
      store_weights(tile.dw[e], path, u, to_w);
    }
  }
}

}  // namespace nf::NF_ISA
