// The order in which a graph's nodes visit their edges.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "tensors.h"

namespace nf {
namespace {

// (ptr, order): the edges of each node in ascending order, by counting.
std::tuple<Tensor, Tensor> visiting_order_cpu(Tensor node_, int64_t num_nodes) {
  const Tensor node = as_contiguous(node_);
  const int64_t edges = node.numel();
  check_index(node, edges, "graph: edge_index");
  check_range(node, num_nodes, "graph: edge_index");
  Tensor ptr = new_tensor(node, {num_nodes + 1}), order = new_tensor(node, {edges});
  const int64_t* nodes = node.const_data_ptr<int64_t>();
  int64_t *starts = ptr.mutable_data_ptr<int64_t>(), *sorted = order.mutable_data_ptr<int64_t>();
  std::vector<int64_t> next(num_nodes + 1, 0);
  for (int64_t e = 0; e < edges; ++e) ++next[nodes[e] + 1];
  for (int64_t i = 0; i < num_nodes; ++i) next[i + 1] += next[i];
  std::copy(next.begin(), next.end(), starts);
  for (int64_t e = 0; e < edges; ++e) sorted[next[nodes[e]]++] = e;
  return {ptr, order};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) { lib.impl("visiting_order", TORCH_BOX(&nf::visiting_order_cpu)); }
