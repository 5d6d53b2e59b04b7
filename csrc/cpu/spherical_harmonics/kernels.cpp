// One vector lane a row: rows are turned into columns, computed on, and turned back.
#include "cpu/columns.h"
#include "cpu/spherical_harmonics/harmonics.h"
#include "formulas/harmonics.h"

namespace nf::NF_ISA {
namespace {

// Three columns, kept for put(c, column), as rows.
template <class T>
struct VectorRows {
  Vec<T> column[3];

  [[gnu::always_inline]] static inline VectorRows read(const T* r, int count) {
    VectorRows v;
    read_columns(r, 3, count, [&](int c, Vec<T> column) { v.column[c] = column; });
    return v;
  }
  [[gnu::always_inline]] inline void write(T* r, int count) const {
    write_rows(r, 3, count, [&](int c) { return column[c]; });
  }
};

// The cotangent of every harmonic up to l_max: zero where the output lacks it, the sum where it comes repeatedly.
template <class T>
[[gnu::always_inline]] inline void read_cotangent(const HarmonicProblem& problem, const T* rows, int count,
                                                  Column<T>* g) {
  if (problem.in_order) {
    read_columns(rows, problem.dim(), count, [&](int c, Vec<T> column) { store(g[c], column); });
  } else {
    std::fill_n(g[0], (problem.l_max + 1) * (problem.l_max + 1) * kLanes<T>, T(0));
    read_columns(rows, problem.dim(), count, [&](int c, Vec<T> column) {
      T* sum = g[problem.columns[c]];
      store(sum, load(sum) + column);
    });
  }
}

template <class T>
[[gnu::always_inline]] inline void write_harmonics(const HarmonicProblem& problem, const Column<T>* y, T* rows,
                                                   int count) {
  write_rows(rows, problem.dim(), count, [&](int c) { return load(y[problem.columns[c]]); });
}

template <class T>
struct Kernels {
  template <class Degree>
  static void values(Degree l_max, const HarmonicProblem& problem, const T* r, T* y, int64_t begin, int64_t end) {
    alignas(64) Column<T> values[kMaxDim];
    for (int64_t i = begin; i < end; i += kLanes<T>) {
      const int count = int(std::min<int64_t>(kLanes<T>, end - i));
      const auto d = direction<T>(problem, VectorRows<T>::read(r + i * 3, count).column);
      harmonics<T>(l_max, problem, d, [&](int k, Vec<T> value) { store(values[k], value); });
      write_harmonics(problem, values, y + i * problem.dim(), count);
    }
  }

  template <class Degree>
  static void vjp(Degree l_max, const HarmonicProblem& problem, const T* r, const T* g, T* dr, int64_t begin,
                  int64_t end) {
    alignas(64) Column<T> cotangent[kMaxDim];
    for (int64_t i = begin; i < end; i += kLanes<T>) {
      const int count = int(std::min<int64_t>(kLanes<T>, end - i));
      const auto d = direction<T>(problem, VectorRows<T>::read(r + i * 3, count).column);
      VectorRows<T> to;
      read_cotangent(problem, g + i * problem.dim(), count, cotangent);
      harmonics_vjp<T>(
          l_max, problem, d, [&](int k) { return load(cotangent[k]); },
          [&](int c, Vec<T> value) { to.column[c] = value; });
      to.write(dr + i * 3, count);
    }
  }

  template <class Degree>
  static void vjp_grad(Degree l_max, const HarmonicProblem& problem, const T* r, const T* g, const T* c, T* dr, T* dg,
                       int64_t begin, int64_t end) {
    alignas(64) Column<T> cotangent[kMaxDim], values[kMaxDim];
    for (int64_t i = begin; i < end; i += kLanes<T>) {
      const int count = int(std::min<int64_t>(kLanes<T>, end - i));
      const VectorRows<T> v = VectorRows<T>::read(r + i * 3, count), along = VectorRows<T>::read(c + i * 3, count);
      const auto d = direction<T>(problem, v.column, along.column);
      VectorRows<T> to;
      read_cotangent(problem, g + i * problem.dim(), count, cotangent);
      harmonics_vjp_grad<T>(
          l_max, problem, d, [&](int k) { return load(cotangent[k]); },
          [&](int c, Vec<T> value) { to.column[c] = value; }, [&](int k, Vec<T> value) { store(values[k], value); });
      to.write(dr + i * 3, count);
      write_harmonics(problem, values, dg + i * problem.dim(), count);
    }
  }
};

template <class T>
constexpr HarmonicKernels<T> kKernels{
    [](const HarmonicProblem& problem, auto... args) {
      with_degree(problem.l_max, [&](auto l_max) { Kernels<T>::values(l_max, problem, args...); });
    },
    [](const HarmonicProblem& problem, auto... args) {
      with_degree(problem.l_max, [&](auto l_max) { Kernels<T>::vjp(l_max, problem, args...); });
    },
    [](const HarmonicProblem& problem, auto... args) {
      with_degree(problem.l_max, [&](auto l_max) { Kernels<T>::vjp_grad(l_max, problem, args...); });
    }};

}  // namespace

template <>
const HarmonicKernels<float>& harmonic_kernels<float>() {
  return kKernels<float>;
}

template <>
const HarmonicKernels<double>& harmonic_kernels<double>() {
  return kKernels<double>;
}

}  // namespace nf::NF_ISA
