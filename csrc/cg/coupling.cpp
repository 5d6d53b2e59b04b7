#include "cg/coupling.h"

#include <array>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <utility>

namespace nf {
namespace {

using Complex = std::complex<double>;

constexpr int kMaxSum = 62;  // of three degrees: the integers of the sum below then fit in 63 bits
constexpr double kZero = 1e-12;  // what rounding leaves of a coefficient that is zero

int64_t binomial(int n, int k) {
  if (k < 0 || k > n) return 0;
  int64_t value = 1;
  for (int i = 1; i <= k; ++i) value = value / i * (n - k + i) + value % i * (n - k + i) / i;  // no overflow on the way
  return value;
}

double factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }

// ⟨l1 m1 l2 m2 | l3 m1+m2⟩ in the complex basis (Condon-Shortley), up to a positive factor that depends on the degrees
// alone: Racah's formula (e.g. Varshalovich, Quantum Theory of Angular Momentum, §8.2.1) with its sum over factorials
// written as a sum over products of binomials, which is exact in integers.
double clebsch_gordan(int l1, int m1, int l2, int m2, int l3) {
  const int m3 = m1 + m2, a = l1 + l2 - l3, b = l1 - l2 + l3, c = -l1 + l2 + l3;
  int64_t sum = 0;
  for (int k = 0; k <= a; ++k) {
    const int64_t product = binomial(a, k) * binomial(b, l1 - m1 - k) * binomial(c, l2 + m2 - k);
    sum += k % 2 ? -product : product;
  }
  return double(sum) * std::sqrt(factorial(l1 + m1) * factorial(l1 - m1)) *
         std::sqrt(factorial(l2 + m2) * factorial(l2 - m2)) * std::sqrt(factorial(l3 + m3) * factorial(l3 - m3));
}

// Entry (complex m, real r) of the change of basis, zero unless |m| = |r|; the phase (−i)^l makes all couplings real.
Complex real_to_complex(int l, int m, int r) {
  if (std::abs(m) != std::abs(r)) return 0;
  static constexpr double kHalf = 0.70710678118654752440;  // 1/√2
  static const Complex phases[] = {{1, 0}, {0, -1}, {-1, 0}, {0, 1}};
  const Complex phase = phases[l % 4];
  if (m == 0) return phase;
  const double sign = m > 0 && m % 2 ? -1 : 1;
  return phase * sign * kHalf * (r > 0 ? Complex(1, 0) : m > 0 ? Complex(0, 1) : Complex(0, -1));
}

double real_coupling(int l1, int r1, int l2, int r2, int l3, int r3) {
  Complex sum = 0;
  for (int m1 : {-r1, r1})
    for (int m2 : {-r2, r2}) {
      const int m3 = m1 + m2;
      if (std::abs(m3) == std::abs(r3))
        sum += real_to_complex(l1, m1, r1) * real_to_complex(l2, m2, r2) * std::conj(real_to_complex(l3, m3, r3)) *
               clebsch_gordan(l1, m1, l2, m2, l3) / ((r1 ? 1.0 : 2.0) * (r2 ? 1.0 : 2.0));  // −0 and 0 are one m
    }
  return sum.real();
}

Coupling compute(int l1, int l2, int l3) {
  Coupling result{l1, l2, l3, {}, {}};
  double squares = 0;
  std::vector<Coupling::Term> all;
  for (int m1 = 0; m1 <= 2 * l1; ++m1)
    for (int m3 = 0; m3 <= 2 * l3; ++m3)
      for (int m2 = 0; m2 <= 2 * l2; ++m2) {
        const double value = real_coupling(l1, m1 - l1, l2, m2 - l2, l3, m3 - l3);
        all.push_back({m1, m2, m3, value});
        squares += value * value;
      }
  const double scale = 1 / std::sqrt(squares);
  for (Coupling::Term term : all) {
    term.value *= scale;
    if (std::abs(term.value) < kZero) continue;
    const int t = int(result.terms.size());
    if (result.entries.empty() || result.entries.back().m1 != term.m1 || result.entries.back().m3 != term.m3)
      result.entries.push_back({term.m1, term.m3, t, t});
    result.entries.back().end = t + 1;
    result.terms.push_back(term);
  }
  return result;
}

}  // namespace

const Coupling& coupling(int l1, int l2, int l3) {
  if (l1 < 0 || l2 < 0 || l3 < std::abs(l1 - l2) || l3 > l1 + l2 || l1 + l2 + l3 > kMaxSum)
    throw std::runtime_error("no coupling of degrees (" + std::to_string(l1) + ", " + std::to_string(l2) + ", " +
                             std::to_string(l3) + "): they must obey the triangle rule and sum to " +
                             std::to_string(kMaxSum) + " at most");
  static std::shared_mutex mutex;
  static std::map<std::array<int, 3>, Coupling> known;  // a map's elements stay where they are
  const std::array degrees{l1, l2, l3};
  {
    const std::shared_lock reading(mutex);
    if (const auto found = known.find(degrees); found != known.end()) return found->second;
  }
  Coupling computed = compute(l1, l2, l3);
  const std::unique_lock writing(mutex);
  return known.emplace(degrees, std::move(computed)).first->second;
}

}  // namespace nf
