// What one kernel of conv computes: all paths from one irrep of x that a group holds, known at compile time.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "cg/path.h"

namespace nf::cuda {

// The paths (l1, l2, l3) of degrees l2 ≤ most2 and l3 ≤ most3; without `mixed` those of even l1 + l2 + l3 alone, which are
// the paths of irreps with the parity (−1)^l. Path p is the p-th by (l2, l3). What a problem lacks is passed over at run
// time, so that one group serves all problems whose paths are some of its own.
template <int l1_, int most2_, int most3_, bool mixed>
struct Group {
  static constexpr int l1 = l1_, most2 = most2_, most3 = most3_;
  static constexpr int n1 = 2 * l1 + 1, harmonics = (most2 + 1) * (most2 + 1);

  static constexpr bool holds(int l2, int l3) {
    return l2 <= most2 && l3 <= most3 && l3 >= (l1 > l2 ? l1 - l2 : l2 - l1) && l3 <= l1 + l2 &&
           (mixed || (l1 + l2 + l3) % 2 == 0);
  }
  // The number of paths before (l2, l3); -1 where the group does not hold it.
  static constexpr int index(int l2, int l3) { return holds(l2, l3) ? before(l2, l3) : -1; }
  static constexpr int paths = [] {
    int n = 0;
    for (int l2 = 0; l2 <= most2; ++l2)
      for (int l3 = 0; l3 <= most3; ++l3) n += holds(l2, l3);
    return n;
  }();

  struct Degrees {
    int l2[paths], l3[paths];
    int out[paths + 1];  // where the path's components begin among those of all
  };
  static constexpr Degrees of = [] {
    Degrees d{};
    int p = 0;
    for (int l2 = 0; l2 <= most2; ++l2)
      for (int l3 = 0; l3 <= most3; ++l3)
        if (holds(l2, l3)) d.l2[p] = l2, d.l3[p] = l3, d.out[p + 1] = d.out[p] + 2 * l3 + 1, ++p;
    return d;
  }();
  static constexpr int components = of.out[paths];

  template <int p>
  using Path = Pattern<l1, of.l2[p], of.l3[p]>;

 private:
  static constexpr int before(int l2, int l3) {
    int n = 0;
    for (int a = 0; a <= l2; ++a)
      for (int b = 0; b <= (a < l2 ? most3 : l3 - 1); ++b) n += holds(a, b);
    return n;
  }
};

template <class... Members>
struct List {
  static constexpr int size = sizeof...(Members);
};

template <int i, class First, class... Rest>
constexpr auto at(List<First, Rest...>) {
  if constexpr (i == 0)
    return First{};
  else
    return at<i - 1>(List<Rest...>{});
}

// The groups that are compiled, each in files of its own: those of the shapes people run (NequIP's presets, SevenNet-0 and
// l3i5, 32 channels of full parity to l = 2 and 64 to l = 3, mace-large), where every (l2, l3) has a path or, at most, some
// are missing. A problem takes the smallest that holds its paths; l1 = 0 has so little work that one serves all.
using Groups = List<
    Group<0, 2, 2, false>, Group<0, 4, 4, false>,                        //
    Group<1, 2, 2, false>, Group<1, 3, 3, false>, Group<1, 4, 4, false>,  //
    Group<2, 2, 2, false>, Group<2, 3, 3, false>, Group<2, 4, 4, false>,  //
    Group<3, 3, 3, false>, Group<3, 4, 4, false>, Group<4, 4, 4, false>,  //
    Group<1, 2, 2, true>, Group<1, 3, 3, true>,                          //
    Group<2, 2, 2, true>, Group<2, 3, 3, true>, Group<3, 3, 3, true>,    //
    Group<1, 1, 0, false>, Group<2, 2, 0, false>, Group<3, 3, 0, false>, Group<4, 4, 0, false>>;  // to scalars alone

template <int i>
using GroupAt = decltype(at<i>(Groups{}));

}  // namespace nf::cuda
