// Spherical harmonics and their first two derivatives, of vectors of lanes or of a thread's numbers.
//
// With P_l^m of harmonic_tables.h and (re, im) = (x + iy)^m, Y_l^m = P re and Y_l^−m = P im. All of it comes from one
// sweep over m and l, first derivatives too: for each m they need the sums over l of P, ∂P/∂z and (∂P/∂x)/x times the
// cotangents. Second derivatives are the same sweep in dual numbers.
#pragma once

#include <type_traits>

#include "formulas/dual.h"
#include "formulas/harmonic_tables.h"
#include "formulas/lanes.h"

namespace nf::NF_ISA {

inline constexpr int kDegrees = kMaxHarmonicDegree + 1, kMaxDim = kDegrees * kDegrees;
inline constexpr int kUnrolled = 4;  // up to this l_max the loops over m and l are unrolled

// --- loops over degrees that may be known to the compiler: int or Index ---

template <class... Degrees>
inline constexpr bool kKnown = (std::is_class_v<Degrees> && ...);

template <class A, class B>
NF_INLINE auto minus(A a, B b) {
  if constexpr (kKnown<A, B>)
    return Index<A::value - B::value>{};
  else
    return int(a) - int(b);
}

// body(i) for i = first … last, unrolled if both are known
template <class First, class Last, class Body>
NF_INLINE void each(First first, Last last, const Body& body) {
  if constexpr (kKnown<First, Last>)
    unroll<Last::value - First::value + 1>([&](auto i) { body(Index<First::value + i.value>{}); });
  else
    for (int i = first; i <= last; ++i) body(i);
}

// run(l_max), known to the compiler up to kUnrolled
template <int l = 0, class Run>
auto with_degree(int l_max, const Run& run) {
  if constexpr (l > kUnrolled)
    return run(l_max);
  else
    return l == l_max ? run(Index<l>{}) : with_degree<l + 1>(l_max, run);
}

// An entry of a table; in the code where degrees are known, and in memory for the others.
#if defined(__CUDACC__)
static __constant__ HarmonicTables kTablesInMemory = HarmonicTables();
#else
inline constexpr const HarmonicTables& kTablesInMemory = kHarmonicTables;
#endif

template <class T, auto table, class L, class M>
NF_INLINE T entry(L l, M m) {
  if constexpr (kKnown<L, M>) {
    constexpr T value = T((kHarmonicTables.*table)[L::value][M::value]);
    return value;
  } else {
    return T((kTablesInMemory.*table)[int(l)][int(m)]);
  }
}

template <class T, class M>
NF_INLINE T diagonal(M m) {
  if constexpr (kKnown<M>) {
    constexpr T value = T(kHarmonicTables.diagonal[M::value]);
    return value;
  } else {
    return T(kTablesInMemory.diagonal[int(m)]);
  }
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
NF_INLINE Direction<T, Vec<T>> normalized(const Direction<T, Vec<T>>& r) {
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
NF_INLINE Direction<T, Dual<T>> normalized(const Direction<T, Dual<T>>& r) {
  const auto u = normalized<T>(Direction<T, Vec<T>>{r.x.value, r.y.value, r.z.value});
  const Vec<T> x = r.x.tangent * u.inverse, y = r.y.tangent * u.inverse, z = r.z.tangent * u.inverse;
  const Vec<T> along = u.turns * (u.x * x + u.y * y + u.z * z);
  return {{u.x, x - u.x * along}, {u.y, y - u.y * along}, {u.z, z - u.z * along}, {u.inverse, -along * u.inverse},
          u.turns};
}

// --- the sweep ---

template <class T, class S>
NF_INLINE S constant(double value) {
  if constexpr (std::is_same_v<S, Dual<T>>)
    return {broadcast<T>(T(value)), Vec<T>{}};
  else
    return broadcast<T>(T(value));
}

template <class T, class S>
struct Powers {
  S re[kDegrees], im[kDegrees];

  template <class Degree>
  NF_INLINE Powers(const Direction<T, S>& d, Degree l_max) {
    re[0] = constant<T, S>(1), im[0] = constant<T, S>(0);
    each(Index<1>{}, l_max, [&](auto m) {
      re[m] = d.x * re[m - 1] - d.y * im[m - 1];
      im[m] = d.x * im[m - 1] + d.y * re[m - 1];
    });
  }
};

// visit(l, m, P_l^m, P_{l-1}^m, P_{l-1}^{m+1}) for every 0 ≤ m ≤ l ≤ l_max, then close(m) when an m is done
template <class T, class S, class Degree, class Visit, class Close>
NF_INLINE void sweep(const Direction<T, S>& d, Degree l_max, const Visit& visit, const Close& close) {
  const S r2 = d.x * d.x + d.y * d.y + d.z * d.z, zero = constant<T, S>(0);
  S beside[kDegrees];  // at l: P_l^{m+1}
  each(Index<0>{}, l_max, [&](auto i) {
    const auto m = minus(l_max, i);
    S p = constant<T, S>(diagonal<T>(m)), below = zero;
    each(m, l_max, [&](auto l) {
      if (l > m) {
        const S next = entry<T, &HarmonicTables::up>(l, m) * (d.z * p) -
                       entry<T, &HarmonicTables::down>(l, m) * (r2 * below);
        below = p;
        p = next;
      }
      visit(l, m, p, below, l > m + 1 ? beside[l - 1] : zero);
      if (l > m) beside[l - 1] = below;
    });
    close(m);
  });
}

// put(k, Y_k), or its derivative in dual numbers, for the harmonics k = l² + l ± m.
template <class T, class S, class Problem, class Put>
NF_INLINE void put_values(const Problem& problem, const Powers<T, S>& powers, int l, int m, const S& p, const Put& put) {
  const S scaled = T(problem.scale[l]) * p;
  put(l * l + l + m, wanted(scaled * powers.re[m]));
  if (m > 0) put(l * l + l - m, wanted(scaled * powers.im[m]));
}

// Sums Σ_k g(k) ∂Y_k/∂(x, y, z) during a sweep.
template <class T, class S, class Problem, class Get>
struct Gradient {
  const Problem& problem;
  const Powers<T, S>& powers;
  const Get& g;
  S zero = constant<T, S>(0);
  S x = zero, y = zero, z = zero, radial = zero;
  S re = zero, im = zero, re_z = zero, im_z = zero, re_radial = zero, im_radial = zero;  // over l, at one m

  NF_INLINE Gradient(const Problem& problem, const Powers<T, S>& powers, const Get& g)
      : problem(problem), powers(powers), g(g) {}

  template <class L, class M>
  NF_INLINE void visit(L l, M m, const S& p, const S& below, const S& beside) {
    const T scale = T(problem.scale[l]);
    const S dz = entry<T, &HarmonicTables::along>(l, m) * below, dr = entry<T, &HarmonicTables::aside>(l, m) * beside;
    const Vec<T> g_re = scale * g(l * l + l + m);
    re += g_re * p;
    re_z += g_re * dz;
    re_radial += g_re * dr;
    if (m > 0) {
      const Vec<T> g_im = scale * g(l * l + l - m);
      im += g_im * p;
      im_z += g_im * dz;
      im_radial += g_im * dr;
    }
  }
  NF_INLINE void close(int m) {
    z += re_z * powers.re[m] + im_z * powers.im[m];
    radial += re_radial * powers.re[m] + im_radial * powers.im[m];
    if (m > 0) {
      x += T(m) * (re * powers.re[m - 1] + im * powers.im[m - 1]);
      y += T(m) * (im * powers.re[m - 1] - re * powers.im[m - 1]);
    }
    re = im = re_z = im_z = re_radial = im_radial = zero;
  }
  // put(c, …) with respect to r, in e3nn's order of the axes
  template <class Put>
  NF_INLINE void finish(const Direction<T, S>& d, const Put& put) {
    x += d.x * radial;
    y += d.y * radial;
    if (problem.normalize) {
      const S along = d.turns * (d.x * x + d.y * y + d.z * z);
      x = d.inverse * (x - d.x * along);
      y = d.inverse * (y - d.y * along);
      z = d.inverse * (z - d.z * along);
    }
    put(0, wanted(y)), put(1, wanted(z)), put(2, wanted(x));
  }
};

// --- a row, or a row a lane ---

// From a vector in e3nn's order of the axes.
template <class T>
NF_INLINE Direction<T, Vec<T>> textbook_axes(const Vec<T> (&v)[3]) {
  return {v[2], v[0], v[1]};
}

// What harmonics are taken of.
template <class T, class Problem>
NF_INLINE Direction<T, Vec<T>> direction(const Problem& problem, const Vec<T> (&r)[3]) {
  const auto v = textbook_axes<T>(r);
  return problem.normalize ? normalized<T>(v) : v;
}

// … with its derivative along `along`
template <class T, class Problem>
NF_INLINE Direction<T, Dual<T>> direction(const Problem& problem, const Vec<T> (&r)[3], const Vec<T> (&along)[3]) {
  const auto v = textbook_axes<T>(r), t = textbook_axes<T>(along);
  const Direction<T, Dual<T>> both{{v.x, t.x}, {v.y, t.y}, {v.z, t.z}};
  return problem.normalize ? normalized<T>(both) : both;
}

// put(k, Y_k)
template <class T, class Degree, class Problem, class Put>
NF_INLINE void harmonics(Degree l_max, const Problem& problem, const Direction<T, Vec<T>>& d, const Put& put) {
  using V = Vec<T>;
  const Powers<T, V> powers(d, l_max);
  sweep<T>(
      d, l_max, [&](auto l, auto m, const V& p, const V&, const V&) { put_values(problem, powers, l, m, p, put); },
      [](auto) {});
}

// put(c, Σ_k g(k) ∂Y_k/∂r_c)
template <class T, class Degree, class Problem, class Get, class Put>
NF_INLINE void harmonics_vjp(Degree l_max, const Problem& problem, const Direction<T, Vec<T>>& d, const Get& g,
                             const Put& put) {
  using V = Vec<T>;
  const Powers<T, V> powers(d, l_max);
  Gradient<T, V, Problem, Get> gradient(problem, powers, g);
  sweep<T>(
      d, l_max,
      [&](auto l, auto m, const V& p, const V& below, const V& beside) { gradient.visit(l, m, p, below, beside); },
      [&](auto m) { gradient.close(m); });
  gradient.finish(d, put);
}

// put(c, Σ_k g(k) ∂²Y_k/∂r_c∂r · t) and put_g(k, ∂Y_k/∂r · t) with t the tangent of d; g(k) is asked for before put_g(k).
template <class T, class Degree, class Problem, class Get, class Put, class PutG>
NF_INLINE void harmonics_vjp_grad(Degree l_max, const Problem& problem, const Direction<T, Dual<T>>& d, const Get& g,
                                  const Put& put, const PutG& put_g) {
  using S = Dual<T>;
  const Powers<T, S> powers(d, l_max);
  Gradient<T, S, Problem, Get> gradient(problem, powers, g);
  sweep<T>(
      d, l_max,
      [&](auto l, auto m, const S& p, const S& below, const S& beside) {
        gradient.visit(l, m, p, below, beside);
        put_values(problem, powers, l, m, p, put_g);
      },
      [&](auto m) { gradient.close(m); });
  gradient.finish(d, put);
}

}  // namespace nf::NF_ISA
