// Which samples are worked on together, and the plan of one call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace nf {

// Samples order[first] … order[first + count − 1], all of one group. The samples of a group share their weights.
struct Tile {
  int64_t first;
  int count, group;
};

struct Tiling {
  std::vector<int64_t> order;  // empty: as they come
  std::vector<Tile> tiles;
  int groups = 1;

  int64_t sample(int64_t position) const { return order.empty() ? position : order[position]; }

  // Cuts group g, the positions starts[g] … starts[g + 1] − 1, into tiles of at most `size` samples.
  void cut(const std::vector<int64_t>& starts, int size) {
    groups = int(starts.size()) - 1;
    for (int g = 0; g < groups; ++g)
      for (int64_t first = starts[g]; first < starts[g + 1]; first += size)
        tiles.push_back({first, int(std::min<int64_t>(size, starts[g + 1] - first)), g});
  }
};

}  // namespace nf
