// The algebra of one path (l1, l2, l3), known at compile time.
//
// Contracting the Clebsch-Gordan tensor with an edge's harmonics leaves a small sparse matrix
//     B[m1, m3] = c · Σ_m2 C(m1, m2, m3) y[m2]
// that is the same for all channels. `Pattern` lists its nonzero entries; each entry is the sum of the terms
// first[b] … first[b + 1] of Cg<l1, l2, l3>.
#pragma once

#include "cg_tables.h"

namespace nf {

template <int l1, int l2, int l3>
struct Pattern {
  using Table = Cg<l1, l2, l3>;
  static constexpr int n1 = 2 * l1 + 1, n2 = 2 * l2 + 1, n3 = 2 * l3 + 1;

  static constexpr bool starts_entry(int t) {
    return t == 0 || Table::m1[t] != Table::m1[t - 1] || Table::m3[t] != Table::m3[t - 1];
  }
  static constexpr int count_entries() {
    int n = 0;
    for (int t = 0; t < Table::count; ++t) n += starts_entry(t);
    return n;
  }
  static constexpr int entries = count_entries();

  struct Entries {
    int m1[entries], m3[entries], first[entries + 1];
  };
  static constexpr Entries list() {
    Entries e{};
    int b = 0;
    for (int t = 0; t < Table::count; ++t)
      if (starts_entry(t)) {
        e.m1[b] = Table::m1[t];
        e.m3[b] = Table::m3[t];
        e.first[b++] = t;
      }
    e.first[entries] = Table::count;
    return e;
  }
  static constexpr Entries at = list();
};

}  // namespace nf
