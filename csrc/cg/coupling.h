// Real Clebsch-Gordan coefficients of any degrees, computed: the one source of the compile-time tables (generate.cpp)
// and of what kernels read at run time for degrees that have none.
#pragma once

#include <vector>

namespace nf {

// C(m1, m2, m3) of three degrees, e3nn's `wigner_3j(l1, l2, l3)`: norm 1, m counted from 0.
struct Coupling {
  struct Term {
    int m1, m2, m3;
    double value;
  };
  // All terms of one (m1, m3): terms[first] … terms[end − 1].
  struct Entry {
    int m1, m3, first, end;
  };
  int l1, l2, l3;
  std::vector<Term> terms;  // the nonzero ones, sorted by (m1, m3, m2)
  std::vector<Entry> entries;
};

// Computed at the first call for these degrees and kept; safe from any thread. Throws std::runtime_error where the
// degrees break the triangle rule |l1 − l2| ≤ l3 ≤ l1 + l2, or their sum exceeds 62.
const Coupling& coupling(int l1, int l2, int l3);

}  // namespace nf
