#include <cmath>
#include <cstdlib>

#include "cpu/spherical_harmonics/harmonics.h"

namespace nf {
namespace {

// Y_lm = norm(l, |m|) · (unnormalised solid harmonic, cosine part for m ≥ 0, sine part for m < 0)
double norm(int l, int m) {
  double ratio = 1;  // (l − m)! / (l + m)!
  for (int i = l - m + 1; i <= l + m; ++i) ratio /= i;
  return std::sqrt((2 * l + 1) * (m ? 2.0 : 1.0) * ratio);
}

int index(int l, int m) { return l * l + l + m; }

void add(std::vector<GradientTerm>& terms, int a, int l, int m, int m_below, double value) {
  if (l == 0 || std::abs(m_below) > l - 1) return;
  const double scaled = value * norm(l, std::abs(m)) / norm(l - 1, std::abs(m_below));
  terms.push_back({a, index(l, m), index(l - 1, m_below), scaled});
}

}  // namespace

HarmonicTables::HarmonicTables() : up{}, down{}, diagonal{} {
  diagonal[0] = 1;
  for (int m = 1; m < kSize; ++m) diagonal[m] = std::sqrt((2.0 * m + 1) / (2.0 * m) * (m == 1 ? 2 : 1));
  for (int m = 0; m < kSize; ++m)
    for (int l = m + 1; l < kSize; ++l) {
      up[l][m] = std::sqrt((4.0 * l * l - 1) / (double(l) * l - double(m) * m));
      const double b = l - 1;
      down[l][m] = l > m + 1 ? std::sqrt((b * b - double(m) * m) / (4 * b * b - 1)) : 0;
    }
  // e3nn's axes (x, y, z) = (0, 1, 2) stand for the textbook's (y, z, x): y is polar
  constexpr int kX = 2, kY = 0, kZ = 1;
  std::vector<GradientTerm> terms;
  for (int l = 0; l < kSize; ++l) {
    add(terms, kZ, l, 0, 0, l);
    add(terms, kX, l, 0, 1, -1);
    add(terms, kY, l, 0, -1, -1);
    for (int m = 1; m <= l; ++m) {
      const double ladder = double(l + m) * (l + m - 1);
      add(terms, kZ, l, m, m, l + m);
      add(terms, kZ, l, -m, -m, l + m);
      add(terms, kX, l, m, m - 1, ladder / 2);
      add(terms, kX, l, m, m + 1, -0.5);
      if (m > 1) add(terms, kX, l, -m, -(m - 1), ladder / 2);  // the sine part of m = 0 is zero
      add(terms, kX, l, -m, -(m + 1), -0.5);
      if (m > 1) add(terms, kY, l, m, -(m - 1), -ladder / 2);
      add(terms, kY, l, m, -(m + 1), -0.5);
      add(terms, kY, l, -m, m - 1, ladder / 2);
      add(terms, kY, l, -m, m + 1, 0.5);
    }
    gradient[l] = terms;
  }
}

const HarmonicTables& HarmonicTables::get() {
  static const HarmonicTables tables;
  return tables;
}

}  // namespace nf
