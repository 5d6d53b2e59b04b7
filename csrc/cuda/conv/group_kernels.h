// The kernels of one group: a warp a node, and in each lane `k` channels 32 apart, so that rows of w are read whole.
//
// Sums stay in registers until a node's edges are done; nothing is atomic, and an edge belongs to one warp, so that results
// are the same bits in every run. Everything that an edge takes from memory is asked for before anything is computed.
#pragma once

#include "cuda/conv/group.h"
#include "cuda/conv/kernels.h"
#include "cuda/launch.h"
#include "unroll.h"

namespace nf::cuda {

inline constexpr int kLanes = 32, kWarpsPerBlock = 4;

// What a lane works on: channel(c) for c < k, those from `mul` on masked.
template <int k>
struct Channels {
  int first, mul;
  NF_INLINE int channel(int c) const { return first + kLanes * c; }
  NF_INLINE bool within(int c) const { return channel(c) < mul; }
};

// The edges of a node in turn; the number of the next is on its way while one is worked on.
struct Walk {
  const int64_t *order, *other;
  int64_t at, end, edge, node;

  __device__ Walk(const Neighbours& graph, int64_t of)
      : order(graph.order), other(graph.other), at(graph.ptr[of]), end(graph.ptr[of + 1]), edge(0), node(0) {
    if (at < end) edge = order[at], node = other[edge];
  }
  template <class Body>
  NF_INLINE void each(const Body& body) {
    while (at < end) {
      const int64_t now = edge, neighbour = node;
      if (++at < end) edge = order[at], node = other[edge];
      body(now, neighbour);
    }
  }
};

template <class T, int n, int k>
NF_INLINE void load_components(T (&to)[n][k], const T* segment, const Channels<k>& lane) {
  unroll<n>([&](auto m) {
    unroll<k>([&](auto c) { to[m][c] = segment && lane.within(c) ? segment[int64_t(lane.channel(c)) * n + m] : T(0); });
  });
}

template <class T, int n, int k>
NF_INLINE void store_components(T* segment, const T (&from)[n][k], const Channels<k>& lane, bool add) {
  unroll<k>([&](auto c) {
    if (!lane.within(c)) return;
    T* const to = segment + int64_t(lane.channel(c)) * n;
    unroll<n>([&](auto m) { to[m] = add ? to[m] + from[m][c] : from[m][c]; });
  });
}

template <class T, int k>
NF_INLINE void load_weights(T (&to)[k], const T* row, const PathArgs<T>& path, const Channels<k>& lane, T without) {
  unroll<k>([&](auto c) {
    const bool reads = row && path.out >= 0 && path.w_stride > 0 && lane.within(c);
    to[c] = reads ? row[path.w + int64_t(lane.channel(c)) * path.w_stride] : without;
  });
}

// An edge's row of w made of rows of a table.
template <class T>
struct FormedRow {
  const T* rows;
  int64_t width;
  T coefficients[kTableRows];

  __device__ FormedRow(const Formed<T>& from, int64_t edge, int64_t width)
      : rows(from.table + from.first[edge] * width), width(width) {
    unroll<kTableRows>([&](auto q) { coefficients[q] = from.coefficients[edge * kTableRows + q]; });
  }
  template <int k>
  NF_INLINE void load(T (&to)[k], const PathArgs<T>& path, const Channels<k>& lane) const {
    unroll<k>([&](auto c) {
      T sum = path.w_stride > 0 ? T(0) : T(1);
      if (path.out >= 0 && path.w_stride > 0 && lane.within(c)) {
        const T* const column = rows + path.w + int64_t(lane.channel(c)) * path.w_stride;
        unroll<kTableRows>([&](auto q) { sum += coefficients[q] * column[q * width]; });
      }
      to[c] = sum;
    });
  }
  // to[q] += Σ_channels g · row q, for the gradient g of the path's weights
  template <int k>
  NF_INLINE void add_gradient(T* to, const T (&g)[k], const PathArgs<T>& path, const Channels<k>& lane) const {
    unroll<k>([&](auto c) {
      if (path.w_stride == 0 || !lane.within(c)) return;
      const T* const column = rows + path.w + int64_t(lane.channel(c)) * path.w_stride;
      unroll<kTableRows>([&](auto q) { to[q] += g[c] * column[q * width]; });
    });
  }
};

template <class T, int n>
NF_INLINE void load_harmonics(T (&to)[n], const T* row, int column) {
  unroll<n>([&](auto m) { to[m] = row && column >= 0 ? row[column + m] : T(0); });
}

// b[entry] = coefficient · Σ_m2 C(m1, m2, m3) y[m2]
template <class P, class T>
NF_INLINE void contract(T (&b)[P::entries], const T (&y)[P::n2], T coefficient) {
  T scaled[P::n2];
  unroll<P::n2>([&](auto m2) { scaled[m2] = coefficient * y[m2]; });
  unroll<P::entries>([&](auto entry) {
    constexpr int first = P::at.first[entry.value], count = P::at.first[entry.value + 1] - first;
    T sum = 0;
    unroll<count>([&](auto t) {
      constexpr int m2 = P::Table::m2[first + t.value];
      constexpr T value = T(P::Table::value[first + t.value]);
      sum += value * scaled[m2];
    });
    b[entry] = sum;
  });
}

// sum[m3] += b[m1, m3] x[m1]
template <class P, class T, int k>
NF_INLINE void add_product(T (*sum)[k], const T (&b)[P::entries], const T (&x)[P::n1][k]) {
  unroll<P::entries>([&](auto e) {
    constexpr int m1 = P::at.m1[e.value], m3 = P::at.m3[e.value];
    unroll<k>([&](auto c) { sum[m3][c] += b[e] * x[m1][c]; });
  });
}

// sum[m1] += b[m1, m3] g[m3]
template <class P, class T, int k>
NF_INLINE void add_transposed(T (&sum)[P::n1][k], const T (&b)[P::entries], const T (*g)[k]) {
  unroll<P::entries>([&](auto e) {
    constexpr int m1 = P::at.m1[e.value], m3 = P::at.m3[e.value];
    unroll<k>([&](auto c) { sum[m1][c] += b[e] * g[m3][c]; });
  });
}

// body(p) for the group's paths of degree l2
template <class G, int l2, class Body>
NF_INLINE void over_paths(const Body& body) {
  unroll<G::paths>([&](auto p) {
    if constexpr (G::of.l2[p.value] == l2) body(p);
  });
}

enum class Mode { plain, tangent, table };  // table: rows of w are formed from one

// out[i] = Σ_edges j → i of B · w · x[j]; with a tangent Σ dB · w · x + B · (dw · x + w · dx)
template <class T, class G, int k, Mode mode>
__global__ void __launch_bounds__(kLanes* kWarpsPerBlock)
    gather(Neighbours graph, GroupArgs<T> args, Widths widths, Inputs<T> in, T* out) {
  constexpr bool tangent = mode == Mode::tangent;
  const Rows<const T>&at = in.at, &along = in.along;
  const int64_t node = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kLanes;
  if (node >= graph.nodes) return;
  const Channels<k> lane{int(blockIdx.y * kLanes * k + threadIdx.x % kLanes), args.mul};
  T sum[G::components][k] = {};
  Walk(graph, node).each([&](int64_t edge, int64_t sender) {
    const auto row = [](const T* rows, int64_t i, int width) { return rows ? rows + i * width : nullptr; };
    const auto in_x = [&](const T* rows) { return rows ? rows + sender * widths.x + args.x : nullptr; };
    T x[G::n1][k], w[G::paths][k], dx[tangent ? G::n1 : 1][k], dw[tangent ? G::paths : 1][k];
    load_components(x, in_x(at.x), lane);
    if constexpr (mode == Mode::table) {
      const FormedRow<T> formed(in.formed, edge, widths.w);
      unroll<G::paths>([&](auto p) { formed.load(w[p], args.path[p], lane); });
    } else {
      unroll<G::paths>([&](auto p) { load_weights(w[p], row(at.w, edge, widths.w), args.path[p], lane, T(1)); });
    }
    if constexpr (tangent) {
      load_components(dx, in_x(along.x), lane);
      unroll<G::paths>([&](auto p) { load_weights(dw[p], row(along.w, edge, widths.w), args.path[p], lane, T(0)); });
    }
    unroll<G::most2 + 1>([&](auto l2) {
      T y[2 * l2.value + 1];
      [[maybe_unused]] T dy[tangent ? 2 * l2.value + 1 : 1];
      load_harmonics(y, row(at.y, edge, widths.y), args.y[l2]);
      if constexpr (tangent) load_harmonics(dy, row(along.y, edge, widths.y), args.y[l2]);
      over_paths<G, l2.value>([&](auto p) {
        if (args.path[p].out < 0) return;
        using P = typename G::template Path<p.value>;
        constexpr int begin = G::of.out[p.value];
        T b[P::entries], wx[P::n1][k];
        contract<P>(b, y, args.path[p].coefficient);
        unroll<P::n1>([&](auto m1) { unroll<k>([&](auto c) { wx[m1][c] = w[p][c] * x[m1][c]; }); });
        if constexpr (tangent) {
          T db[P::entries];
          contract<P>(db, dy, args.path[p].coefficient);
          add_product<P>(sum + begin, db, wx);
          unroll<P::n1>([&](auto m1) {
            unroll<k>([&](auto c) { wx[m1][c] = w[p][c] * dx[m1][c] + dw[p][c] * x[m1][c]; });
          });
        }
        add_product<P>(sum + begin, b, wx);
      });
    });
  });
  unroll<G::paths>([&](auto p) {
    if (args.path[p].out < 0) return;
    constexpr int n3 = 2 * G::of.l3[p.value] + 1, begin = G::of.out[p.value];
    T mine[n3][k];
    unroll<n3>([&](auto m) { unroll<k>([&](auto c) { mine[m][c] = sum[begin + m][c]; }); });
    store_components(out + node * widths.out + args.path[p].out, mine, lane, widths.add_out);
  });
}

// The sum over lanes of values[i], in lanes i·(32/size) …: each step halves what a lane still holds.
template <int size, class T>
NF_INLINE T sum_over_lanes(T (&values)[size]) {
  static_assert(size >= 1 && size <= kLanes && (size & (size - 1)) == 0);
  const int lane = threadIdx.x % kLanes;
  unroll<5>([&](auto step) {
    constexpr int bit = kLanes >> (step.value + 1), half = (size >> step.value) / 2;
    if constexpr (half > 0) {
      const bool upper = lane & bit;
      unroll<half>([&](auto i) {
        const T kept = upper ? values[i + half] : values[i], sent = upper ? values[i] : values[i + half];
        values[i] = kept + __shfl_xor_sync(~0u, sent, bit);
      });
    } else {
      values[0] += __shfl_xor_sync(~0u, values[0], bit);
    }
  });
  return values[0];
}

constexpr int power_of_two(int n) {
  int power = 1;
  while (power < n) power *= 2;
  return power;
}

// The gradients of Σ g · conv: with Bg[m1] = Σ B[m1, m3] g[m3] on edges j → i, g being g[i],
//   dx[j] = Σ_edges w · Bg;  dw = Σ x · Bg;  dy[m2] += c · Σ_channels w · C(m1, m2, m3) x[m1] g[m3]
// and with a tangent their derivatives along it, for each factor the sum over it replaced. With a table to.w is of its
// coefficients [edges, kTableRows], added to as dy is. Senders' edges in turn: the rows of x and their gradients stay in
// registers.
template <class T, class G, int k, Mode mode>
__global__ void __launch_bounds__(kLanes* kWarpsPerBlock)
    gradient(Neighbours graph, GroupArgs<T> args, Widths widths, Inputs<T> in, Rows<T> to) {
  constexpr bool tangent = mode == Mode::tangent, table = mode == Mode::table;
  const Rows<const T>&at = in.at, &along = in.along;
  const int64_t node = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kLanes;
  if (node >= graph.nodes) return;
  // Sums over the channels of an edge: of y's components, then of a table's coefficients. A lane adds to one of them.
  constexpr int sums = G::harmonics + (table ? kTableRows : 0), size = power_of_two(sums), of_each = kLanes / size;
  const int mine = threadIdx.x % of_each == 0 ? int(threadIdx.x % kLanes) / of_each : sums;
  int column = -1;  // of y
  unroll<G::most2 + 1>([&](auto l2) {
    const int m = mine - l2 * l2;
    if (m >= 0 && m <= 2 * l2 && args.y[l2] >= 0) column = args.y[l2] + m;
  });
  const auto in_x = [&](auto* rows) { return rows ? rows + node * widths.x + args.x : nullptr; };
  for (int first = 0; first < args.mul; first += kLanes * k) {  // in turn: they add to the same rows of dy
    const Channels<k> lane{first + int(threadIdx.x % kLanes), args.mul};
    T x[G::n1][k], to_x[G::n1][k] = {}, dx[tangent ? G::n1 : 1][k];
    load_components(x, in_x(at.x), lane);
    if constexpr (tangent) load_components(dx, in_x(along.x), lane);
    Walk(graph, node).each([&](int64_t edge, int64_t receiver) {
      const auto row = [](auto* rows, int64_t i, int width) { return rows ? rows + i * width : nullptr; };
      T to_edge[size] = {}, w[G::paths][k], dw[tangent ? G::paths : 1][k];
      if constexpr (table) {
        const FormedRow<T> formed(in.formed, edge, widths.w);
        unroll<G::paths>([&](auto p) { formed.load(w[p], args.path[p], lane); });
      } else {
        unroll<G::paths>([&](auto p) { load_weights(w[p], row(at.w, edge, widths.w), args.path[p], lane, T(1)); });
      }
      if constexpr (tangent)
        unroll<G::paths>([&](auto p) { load_weights(dw[p], row(along.w, edge, widths.w), args.path[p], lane, T(0)); });
      unroll<G::most2 + 1>([&](auto l2) {
        T y[2 * l2.value + 1], gs[G::components][k];
        [[maybe_unused]] T dy[tangent ? 2 * l2.value + 1 : 1];
        load_harmonics(y, row(at.y, edge, widths.y), args.y[l2]);
        if constexpr (tangent) load_harmonics(dy, row(along.y, edge, widths.y), args.y[l2]);
        over_paths<G, l2.value>([&](auto p) {
          constexpr int n3 = 2 * G::of.l3[p.value] + 1, begin = G::of.out[p.value];
          T mine[n3][k];
          load_components(mine, args.path[p].out < 0 ? nullptr : in.g + receiver * widths.out + args.path[p].out, lane);
          unroll<n3>([&](auto m) { unroll<k>([&](auto c) { gs[begin + m][c] = mine[m][c]; }); });
        });
        over_paths<G, l2.value>([&](auto p) {
          const PathArgs<T>& path = args.path[p];
          if (path.out < 0) return;
          using P = typename G::template Path<p.value>;
          constexpr int begin = G::of.out[p.value];
          const T(*const g)[k] = gs + begin;
          T b[P::entries], bg[P::n1][k] = {}, wx[P::n1][k], to_w[k] = {};
          contract<P>(b, y, path.coefficient);
          add_transposed<P>(bg, b, g);
          if constexpr (tangent) {
            T dbg[P::n1][k] = {};
            contract<P>(b, dy, path.coefficient);
            add_transposed<P>(dbg, b, g);
            unroll<P::n1>([&](auto m1) {
              unroll<k>([&](auto c) {
                to_x[m1][c] += w[p][c] * dbg[m1][c] + dw[p][c] * bg[m1][c];
                to_w[c] += x[m1][c] * dbg[m1][c] + dx[m1][c] * bg[m1][c];
                wx[m1][c] = w[p][c] * dx[m1][c] + dw[p][c] * x[m1][c];
              });
            });
          } else {
            unroll<P::n1>([&](auto m1) {
              unroll<k>([&](auto c) {
                to_x[m1][c] += w[p][c] * bg[m1][c];
                to_w[c] += x[m1][c] * bg[m1][c];
                wx[m1][c] = w[p][c] * x[m1][c];
              });
            });
          }
          if constexpr (table) {
            FormedRow<T>(in.formed, edge, widths.w).add_gradient(to_edge + G::harmonics, to_w, path, lane);
          } else if (to.w && path.w_stride > 0) {
            unroll<k>([&](auto c) {
              if (lane.within(c))
                to.w[edge * widths.w + path.w + int64_t(lane.channel(c)) * path.w_stride] = to_w[c];
            });
          }
          unroll<P::entries>([&](auto e) {
            constexpr int m1 = P::at.m1[e.value], m3 = P::at.m3[e.value];
            constexpr int first = P::at.first[e.value], count = P::at.first[e.value + 1] - first;
            T product = 0;
            unroll<k>([&](auto c) { product += wx[m1][c] * g[m3][c]; });
            product *= path.coefficient;
            unroll<count>([&](auto t) {
              constexpr int m2 = l2.value * l2.value + P::Table::m2[first + t.value];
              constexpr T value = T(P::Table::value[first + t.value]);
              to_edge[m2] += value * product;
            });
          });
        });
      });
      if (!to.y && !(table && to.w)) return;
      const T total = sum_over_lanes(to_edge);
      if (to.y && column >= 0) to.y[edge * widths.y + column] += total;
      if constexpr (table)
        if (to.w && mine >= G::harmonics && mine < sums) to.w[edge * kTableRows + mine - G::harmonics] += total;
    });
    if (to.x) store_components(in_x(to.x), to_x, lane, widths.add_x);
  }
}

}  // namespace nf::cuda
