// Graphs as a caller may well give them.
#pragma once

#include <utility>

#include "check.h"

namespace nf::check {

// Edges and the order in which the nodes of one end visit theirs.
struct Visits {
  Exact<int64_t> ptr, order;

  Visits(const std::vector<int64_t>& node, int64_t nodes) : ptr(nodes + 1), order(int64_t(node.size())) {
    std::vector<std::vector<int64_t>> edges(nodes);
    for (size_t e = 0; e < node.size(); ++e) edges[node[e]].push_back(int64_t(e));
    int64_t at = 0;
    for (int64_t i = 0; i < nodes; ++i) {
      ptr.data()[i] = at;
      for (int64_t e : edges[i]) order.data()[at++] = e;
    }
    ptr.data()[nodes] = at;
  }
};

struct EdgeList {
  int64_t nodes;
  std::vector<int64_t> receiver, sender;
};

inline EdgeList random_edges(int64_t nodes, int64_t edges, unsigned seed) {
  std::mt19937 engine(seed);
  EdgeList list{nodes, {}, {}};
  for (int64_t e = 0; e < edges; ++e) {
    list.receiver.push_back(int64_t(engine() % nodes));
    list.sender.push_back(int64_t(engine() % nodes));
  }
  return list;
}

// Nothing; nodes alone; one self edge; unsorted with duplicates and isolated nodes; one node with all edges, more
// than two tiles and one edge over; many nodes.
inline std::vector<EdgeList> awkward_graphs() {
  EdgeList star = random_edges(3, 37, 1);
  std::fill(star.receiver.begin(), star.receiver.end(), 1);
  return {{0, {}, {}}, {3, {}, {}}, {1, {0}, {0}}, {5, {3, 1, 3, 1, 1, 3}, {2, 1, 2, 4, 4, 0}}, star,
          random_edges(17, 90, 2)};
}

}  // namespace nf::check
