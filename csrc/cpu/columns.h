// Rows of numbers to columns of vector lanes and back, in registers: kLanes<T> rows of `dim` elements <-> dim vectors,
// lane e of vector c being element c of row e.
#pragma once

#include <algorithm>
#include <utility>

#include "cpu/transpose.h"
#include "unroll.h"

namespace nf::NF_ISA {

template <class T>
using Column = T[kLanes<T>];  // where a vector is kept in memory; arrays of it want alignas(64)

// Lane i of the result is element index(i) of a followed by b.
template <int (*index)(int), class V>
[[gnu::always_inline]] inline V shuffle(V a, V b) {
  return [&]<int... i>(std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, index(i)...);
  }(std::make_integer_sequence<int, sizeof(V) / sizeof a[0]>{});
}

// --- a few columns: the rows are one run of n vectors ---

template <class T, int n>
struct Few {
  // Vector k of the rows from the columns: lane i is element (k · lanes + i) % n of row (k · lanes + i) / n.
  struct Row {
    static constexpr int vector(int k, int i) { return (k * kLanes<T> + i) % n; }
    static constexpr int lane(int k, int i) { return (k * kLanes<T> + i) / n; }
  };
  // Column k from the vectors of the rows: lane i is element i · n + k of the run.
  struct Col {
    static constexpr int vector(int k, int i) { return (i * n + k) / kLanes<T>; }
    static constexpr int lane(int k, int i) { return (i * n + k) % kLanes<T>; }
  };

  // Step s brings in what comes from vector s and keeps the rest.
  template <class Source, int k, int s>
  static constexpr int index(int i) {
    const int from = Source::vector(k, i);
    return from == s ? kLanes<T> + Source::lane(k, i) : from == 0 && s == 1 ? Source::lane(k, i) : i;
  }
  template <class Source, int k, int s = n - 1>
  [[gnu::always_inline]] static Vec<T> pick(const Vec<T> (&v)[n]) {
    if constexpr (s == 0)
      return v[0];
    else
      return shuffle<index<Source, k, s>>(pick<Source, k, s - 1>(v), v[s]);
  }
  template <class Source>
  [[gnu::always_inline]] static void rearrange(const Vec<T> (&v)[n], Vec<T> (&out)[n]) {
    [&]<int... k>(std::integer_sequence<int, k...>) {
      ((out[k] = pick<Source, k>(v)), ...);
    }(std::make_integer_sequence<int, n>{});
  }
};

template <class T, int n, class Put>
[[gnu::always_inline]] inline void read_few(const T* rows, const Put& put) {
  Vec<T> run[n], columns[n];
  for (int k = 0; k < n; ++k) run[k] = load(rows + k * kLanes<T>);
  Few<T, n>::template rearrange<typename Few<T, n>::Col>(run, columns);
  for (int c = 0; c < n; ++c) put(c, columns[c]);
}

template <class T, int n, class Get>
[[gnu::always_inline]] inline void write_few(T* rows, const Get& get) {
  Vec<T> run[n], columns[n];
  for (int c = 0; c < n; ++c) columns[c] = get(c);
  Few<T, n>::template rearrange<typename Few<T, n>::Row>(columns, run);
  for (int k = 0; k < n; ++k) store(rows + k * kLanes<T>, run[k]);
}

// body(dim as a constant) where so many columns go faster this way than as part of a square of vectors
template <class T, class Body>
[[gnu::always_inline]] inline bool few(int dim, const Body& body) {
  switch (dim) {
    case 1: return body(Index<1>{}), true;
    case 3: return body(Index<3>{}), true;
    case 4: return body(Index<4>{}), true;
    case 5: return body(Index<5>{}), true;
    case 7: return body(Index<7>{}), true;
    default: return false;
  }
}

// --- any number of columns ---

// A vector at element `first` of row e stays inside the block of rows.
template <class T>
inline bool inside(int e, int first, int dim) {
  return (kLanes<T> - e) * dim - first >= kLanes<T>;
}

// put(c, column c) for the `count` rows given; lanes beyond are zero.
template <class T, class Put>
[[gnu::always_inline]] inline void read_columns(const T* rows, int dim, int count, const Put& put) {
  constexpr int lanes = kLanes<T>;
  if (count < lanes) {
    for (int c = 0; c < dim; ++c) {
      Vec<T> column{};
      for (int e = 0; e < count; ++e) column[e] = rows[int64_t(e) * dim + c];
      put(c, column);
    }
  } else if (!few<T>(dim, [&](auto n) { read_few<T, n.value>(rows, put); })) {
    for (int first = 0; first < dim; first += lanes) {
      const int width = std::min(lanes, dim - first);
      Vec<T> v[lanes];
#pragma GCC unroll 16
      for (int e = 0; e < lanes; ++e) {
        const T* row = rows + int64_t(e) * dim + first;
        v[e] = inside<T>(e, first, dim) ? load(row) : load(row, width);
      }
      transpose<T>(v);
#pragma GCC unroll 16
      for (int c = 0; c < lanes; ++c)
        if (c < width) put(first + c, v[c]);
    }
  }
}

// The first `count` rows from get(c) = column c.
template <class T, class Get>
[[gnu::always_inline]] inline void write_rows(T* rows, int dim, int count, const Get& get) {
  constexpr int lanes = kLanes<T>;
  if (count < lanes) {
    for (int c = 0; c < dim; ++c) {
      const Vec<T> column = get(c);
      for (int e = 0; e < count; ++e) rows[int64_t(e) * dim + c] = column[e];
    }
  } else if (!few<T>(dim, [&](auto n) { write_few<T, n.value>(rows, get); })) {
    // Stores of the last, narrower columns run over into the next row, which is written afterwards.
    for (int first = (dim - 1) / lanes * lanes; first >= 0; first -= lanes) {
      const int width = std::min(lanes, dim - first);
      Vec<T> v[lanes];
#pragma GCC unroll 16
      for (int c = 0; c < lanes; ++c) v[c] = c < width ? get(first + c) : Vec<T>{};
      transpose<T>(v);
#pragma GCC unroll 16
      for (int e = 0; e < lanes; ++e) {
        T* row = rows + int64_t(e) * dim + first;
        inside<T>(e, first, dim) ? store(row, v[e]) : store(row, v[e], width);
      }
    }
  }
}

}  // namespace nf::NF_ISA
