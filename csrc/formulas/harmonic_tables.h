// Constants of the recurrences of e3nn's harmonics (component normalisation), computed by the compiler.
//
// P_l^m, normalised, is the part of the solid harmonic r^l Y_l^±m that depends on z and r² alone:
// r^l Y_lm = P_l^|m| · (Re for m ≥ 0, Im for m < 0) (x + iy)^|m|, z being the polar axis. Then
//   P_m^m = diagonal[m],  P_l^m = up[l][m] · z P_{l-1}^m − down[l][m] · r² P_{l-2}^m,
//   ∂P_l^m/∂z = along[l][m] · P_{l-1}^m (r² not held),  ∂P_l^m/∂x = x · aside[l][m] · P_{l-1}^{m+1} (likewise y).
#pragma once

namespace nf {

inline constexpr int kMaxHarmonicDegree = 11;

struct HarmonicTables {
  static constexpr int kSize = kMaxHarmonicDegree + 1;
  double diagonal[kSize]{}, up[kSize][kSize]{}, down[kSize][kSize]{}, along[kSize][kSize]{}, aside[kSize][kSize]{};

  constexpr HarmonicTables() {
    double odd = 1;  // (2m − 1)!!
    for (int m = 0; m < kSize; odd *= 2 * m + 1, ++m) {
      diagonal[m] = norm(m, m) * odd;
      for (int l = m + 1; l < kSize; ++l) {
        up[l][m] = (2 * l - 1.0) / (l - m) * norm(l, m) / norm(l - 1, m);
        along[l][m] = (l + m) * norm(l, m) / norm(l - 1, m);
        if (l == m + 1) continue;
        down[l][m] = (l + m - 1.0) / (l - m) * norm(l, m) / norm(l - 2, m);
        aside[l][m] = -norm(l, m) / norm(l - 1, m + 1);
      }
    }
  }

 private:
  // Y_lm over the harmonic made of unnormalised Legendre functions
  static constexpr double norm(int l, int m) {
    double square = (2 * l + 1) * (m ? 2.0 : 1.0);
    for (int i = l - m + 1; i <= l + m; ++i) square /= i;
    return sqrt(square);
  }
  static constexpr double sqrt(double square) {  // std::sqrt is not constexpr; Newton's steps from above fall until done
    double root = square > 1 ? square : 1;
    while (true) {
      const double next = (root + square / root) / 2;
      if (next >= root) return root;
      root = next;
    }
  }
};

inline constexpr HarmonicTables kHarmonicTables;

}  // namespace nf
