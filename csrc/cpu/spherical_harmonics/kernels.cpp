// One vector lane a row: rows are turned into columns, computed on, and turned back.
//
// With P_l^m of tables.h and (re, im) = (x + iy)^m, Y_l^m = P re and Y_l^−m = P im. All of it comes from one sweep over
// m and l, first derivatives too: for each m they need the sums over l of P, ∂P/∂z and (∂P/∂x)/x times the cotangents.
// Second derivatives are the same sweep in dual numbers.
#include <type_traits>

#include "cpu/columns.h"
#include "cpu/math.h"
#include "cpu/spherical_harmonics/dual.h"
#include "cpu/spherical_harmonics/harmonics.h"
#include "unroll.h"

namespace nf::NF_ISA {
namespace {

constexpr int kDegrees = kMaxHarmonicDegree + 1, kMaxDim = kDegrees * kDegrees;
constexpr int kUnrolled = 4;  // up to this l_max the loops over m and l are unrolled
constexpr const HarmonicTables& kTables = kHarmonicTables;

// --- loops over degrees that may be known to the compiler: int or Index ---

template <class A, class B>
constexpr auto minus(A a, B b) {
  if constexpr (std::is_class_v<A> && std::is_class_v<B>)
    return Index<A::value - B::value>{};
  else
    return int(a) - int(b);
}

// body(i) for i = first … last, unrolled if both are known
template <class First, class Last, class Body>
[[gnu::always_inline]] inline void each(First first, Last last, const Body& body) {
  if constexpr (std::is_class_v<First> && std::is_class_v<Last>)
    unroll<Last::value - First::value + 1>([&](auto i) { body(Index<First::value + i.value>{}); });
  else
    for (int i = first; i <= last; ++i) body(i);
}

// --- directions ---

// Vectors shorter than this are divided by it, as in torch.nn.functional.normalize: zero stays zero.
template <class T>
constexpr T kShortest = T(1e-12);
// Above kLong a square may overflow; times kShrink it does not.
template <class T>
constexpr T kLong = sizeof(T) == 4 ? T(1e18) : T(1e150);
template <class T>
constexpr T kShrink = sizeof(T) == 4 ? T(0x1p-100) : T(0x1p-600);

template <class T, class S>
struct Direction {
  S x, y, z;                 // textbook axes, z polar; r, or u = r/|r|
  S inverse{};               // 1/|r|
  Vec<T> turns{};            // 1, or 0 where r is too short for its length to count
};

template <class T>
inline Direction<T, Vec<T>> normalized(const Direction<T, Vec<T>>& r) {
  using V = Vec<T>;
  const auto magnitude = [](V v) { return v < 0 ? -v : v; };
  const auto larger = [](V a, V b) { return a < b ? b : a; };
  const V longest = larger(magnitude(r.x), larger(magnitude(r.y), magnitude(r.z)));
  const V one = V{} + T(1), shrink = longest > kLong<T> ? V{} + kShrink<T> : one;
  const V x = r.x * shrink, y = r.y * shrink, z = r.z * shrink;
  const V length = sqrt<T>(x * x + y * y + z * z);
  const auto too_short = length < kShortest<T>;
  const V inverse = shrink / (too_short ? V{} + kShortest<T> : length);
  return {r.x * inverse, r.y * inverse, r.z * inverse, inverse, too_short ? V{} : one};
}

// du = (dr − u (u · dr)) / |r|
template <class T>
inline Direction<T, Dual<T>> normalized(const Direction<T, Dual<T>>& r) {
  const auto u = normalized<T>(Direction<T, Vec<T>>{r.x.value, r.y.value, r.z.value});
  const Vec<T> x = r.x.tangent * u.inverse, y = r.y.tangent * u.inverse, z = r.z.tangent * u.inverse;
  const Vec<T> along = u.turns * (u.x * x + u.y * y + u.z * z);
  return {{u.x, x - u.x * along}, {u.y, y - u.y * along}, {u.z, z - u.z * along}, {u.inverse, -along * u.inverse},
          u.turns};
}

// --- the sweep ---

template <class T, class S>
inline S constant(double value) {
  if constexpr (std::is_same_v<S, Dual<T>>)
    return {broadcast<T>(T(value)), Vec<T>{}};
  else
    return broadcast<T>(T(value));
}

template <class T, class S>
struct Powers {
  S re[kDegrees], im[kDegrees];

  template <class Degree>
  [[gnu::always_inline]] Powers(const Direction<T, S>& d, Degree l_max) {
    re[0] = constant<T, S>(1), im[0] = constant<T, S>(0);
    each(Index<1>{}, l_max, [&](auto m) {
      re[m] = d.x * re[m - 1] - d.y * im[m - 1];
      im[m] = d.x * im[m - 1] + d.y * re[m - 1];
    });
  }
};

// visit(l, m, P_l^m, P_{l-1}^m, P_{l-1}^{m+1}) for every 0 ≤ m ≤ l ≤ l_max, then close(m) when an m is done
template <class T, class S, class Degree, class Visit, class Close>
[[gnu::always_inline]] inline void sweep(const Direction<T, S>& d, Degree l_max, const Visit& visit, const Close& close) {
  const S r2 = d.x * d.x + d.y * d.y + d.z * d.z, zero = constant<T, S>(0);
  S beside[kDegrees];  // at l: P_l^{m+1}
  each(Index<0>{}, l_max, [&](auto i) {
    const auto m = minus(l_max, i);
    S p = constant<T, S>(kTables.diagonal[m]), below = zero;
    each(m, l_max, [&](auto l) {
      if (l > m) {
        const S next = T(kTables.up[l][m]) * (d.z * p) - T(kTables.down[l][m]) * (r2 * below);
        below = p;
        p = next;
      }
      visit(l, m, p, below, l > m + 1 ? beside[l - 1] : zero);
      if (l > m) beside[l - 1] = below;
    });
    close(m);
  });
}

template <class T, class S>
[[gnu::always_inline]] inline void put_values(const HarmonicProblem& problem, const Powers<T, S>& powers, int l, int m,
                                              const S& p, Column<T>* y) {
  const S scaled = T(problem.scale[l]) * p;
  store(y[l * l + l + m], wanted(scaled * powers.re[m]));
  if (m > 0) store(y[l * l + l - m], wanted(scaled * powers.im[m]));
}

// Sums Σ_k g_k ∂Y_k/∂(x, y, z) during a sweep.
template <class T, class S>
struct Gradient {
  const HarmonicProblem& problem;
  const Powers<T, S>& powers;
  const Column<T>* g;
  S zero = constant<T, S>(0);
  S x = zero, y = zero, z = zero, radial = zero;
  S re = zero, im = zero, re_z = zero, im_z = zero, re_radial = zero, im_radial = zero;  // over l, at one m

  [[gnu::always_inline]] void visit(int l, int m, const S& p, const S& below, const S& beside) {
    const T scale = T(problem.scale[l]);
    const S dz = T(kTables.along[l][m]) * below, dr = T(kTables.aside[l][m]) * beside;
    const Vec<T> g_re = scale * load(g[l * l + l + m]);
    re += g_re * p;
    re_z += g_re * dz;
    re_radial += g_re * dr;
    if (m > 0) {
      const Vec<T> g_im = scale * load(g[l * l + l - m]);
      im += g_im * p;
      im_z += g_im * dz;
      im_radial += g_im * dr;
    }
  }
  [[gnu::always_inline]] void close(int m) {
    z += re_z * powers.re[m] + im_z * powers.im[m];
    radial += re_radial * powers.re[m] + im_radial * powers.im[m];
    if (m > 0) {
      x += T(m) * (re * powers.re[m - 1] + im * powers.im[m - 1]);
      y += T(m) * (im * powers.re[m - 1] - re * powers.im[m - 1]);
    }
    re = im = re_z = im_z = re_radial = im_radial = zero;
  }
  // … with respect to r, in e3nn's order of the axes
  [[gnu::always_inline]] void write(const Direction<T, S>& d, T* rows, int count) {
    x += d.x * radial;
    y += d.y * radial;
    if (problem.normalize) {
      const S along = d.turns * (d.x * x + d.y * y + d.z * z);
      x = d.inverse * (x - d.x * along);
      y = d.inverse * (y - d.y * along);
      z = d.inverse * (z - d.z * along);
    }
    write_rows(rows, 3, count, [&](int c) { return wanted(c == 0 ? y : c == 1 ? z : x); });
  }
};

// --- kernels ---

template <class T>
[[gnu::always_inline]] inline Direction<T, Vec<T>> read_vectors(const T* r, int count) {
  Vec<T> v[3];
  read_columns(r, 3, count, [&](int c, Vec<T> column) { v[c] = column; });
  return {v[2], v[0], v[1]};
}

template <class T, class S>
[[gnu::always_inline]] inline Direction<T, S> direction(const HarmonicProblem& problem, const Direction<T, S>& r) {
  return problem.normalize ? normalized<T>(r) : r;
}

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
  using V = Vec<T>;

  template <class Degree>
  static void harmonics(Degree l_max, const HarmonicProblem& problem, const T* r, T* y, int64_t begin, int64_t end) {
    alignas(64) Column<T> values[kMaxDim];
    for (int64_t i = begin; i < end; i += kLanes<T>) {
      const int count = int(std::min<int64_t>(kLanes<T>, end - i));
      const auto d = direction<T>(problem, read_vectors(r + i * 3, count));
      const Powers<T, V> powers(d, l_max);
      sweep<T>(
          d, l_max, [&](auto l, auto m, V p, V, V) { put_values(problem, powers, l, m, p, values); }, [](auto) {});
      write_harmonics(problem, values, y + i * problem.dim(), count);
    }
  }

  template <class Degree>
  static void vjp(Degree l_max, const HarmonicProblem& problem, const T* r, const T* g, T* dr, int64_t begin,
                  int64_t end) {
    alignas(64) Column<T> cotangent[kMaxDim];
    for (int64_t i = begin; i < end; i += kLanes<T>) {
      const int count = int(std::min<int64_t>(kLanes<T>, end - i));
      const auto d = direction<T>(problem, read_vectors(r + i * 3, count));
      read_cotangent(problem, g + i * problem.dim(), count, cotangent);
      const Powers<T, V> powers(d, l_max);
      Gradient<T, V> gradient{problem, powers, cotangent};
      sweep<T>(
          d, l_max, [&](auto l, auto m, V p, V below, V beside) { gradient.visit(l, m, p, below, beside); },
          [&](auto m) { gradient.close(m); });
      gradient.write(d, dr + i * 3, count);
    }
  }

  template <class Degree>
  static void vjp_grad(Degree l_max, const HarmonicProblem& problem, const T* r, const T* g, const T* c, T* dr, T* dg,
                       int64_t begin, int64_t end) {
    using S = Dual<T>;
    alignas(64) Column<T> cotangent[kMaxDim], values[kMaxDim];
    for (int64_t i = begin; i < end; i += kLanes<T>) {
      const int count = int(std::min<int64_t>(kLanes<T>, end - i));
      const auto v = read_vectors(r + i * 3, count), t = read_vectors(c + i * 3, count);
      const auto d = direction<T>(problem, Direction<T, S>{{v.x, t.x}, {v.y, t.y}, {v.z, t.z}});
      read_cotangent(problem, g + i * problem.dim(), count, cotangent);
      const Powers<T, S> powers(d, l_max);
      Gradient<T, S> gradient{problem, powers, cotangent};
      sweep<T>(
          d, l_max,
          [&](auto l, auto m, const S& p, const S& below, const S& beside) {
            put_values(problem, powers, l, m, p, values);
            gradient.visit(l, m, p, below, beside);
          },
          [&](auto m) { gradient.close(m); });
      gradient.write(d, dr + i * 3, count);
      write_harmonics(problem, values, dg + i * problem.dim(), count);
    }
  }
};

// run(l_max), known to the compiler up to kUnrolled
template <int l = 0, class Run>
void with_degree(int l_max, const Run& run) {
  if constexpr (l > kUnrolled)
    run(l_max);
  else
    l == l_max ? run(Index<l>{}) : with_degree<l + 1>(l_max, run);
}

template <class T>
constexpr HarmonicKernels<T> kKernels{
    [](const HarmonicProblem& problem, auto... args) {
      with_degree(problem.l_max, [&](auto l_max) { Kernels<T>::harmonics(l_max, problem, args...); });
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
