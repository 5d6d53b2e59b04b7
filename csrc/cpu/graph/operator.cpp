// The order in which a graph's nodes visit their edges, and pairs of edges that are each other's reverse.
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

// Of each edge its first reverse, where that comes earlier and is nobody's reverse itself, else the edge: sender and
// receiver exchanged, the vector negated and x the same to the last bit. ptr, order: the edges that arrive at each node.
Tensor first_of_pair_cpu(Tensor receiver_, Tensor sender_, Tensor ptr_, Tensor order_, Tensor vectors_, Tensor x_) {
  const Tensor receiver = as_contiguous(receiver_), sender = as_contiguous(sender_), ptr = as_contiguous(ptr_),
               order = as_contiguous(order_), vectors = as_contiguous(vectors_), x = as_contiguous(x_);
  const int64_t edges = receiver.numel(), nodes = ptr.numel() - 1;
  for (const Tensor* index : {&receiver, &sender, &order}) {
    check_index(*index, edges, "first_of_pair: an index");
    check_range(*index, index == &order ? edges : nodes, "first_of_pair: an index");
  }
  check_index(ptr, nodes + 1, "first_of_pair: ptr");
  check_segments(ptr, edges, "first_of_pair: ptr");
  STD_TORCH_CHECK(vectors.dim() == 2 && vectors.size(0) == edges && vectors.size(1) == 3 && x.numel() == edges &&
                      x.scalar_type() == vectors.scalar_type(),
                  "first_of_pair: vectors must be [", edges, ", 3], and x as many numbers of their dtype");
  Tensor first = new_tensor(receiver, {edges});
  const int64_t *to = receiver.const_data_ptr<int64_t>(), *from = sender.const_data_ptr<int64_t>(),
                *starts = ptr.const_data_ptr<int64_t>(), *numbers = order.const_data_ptr<int64_t>();
  int64_t* const firsts = first.mutable_data_ptr<int64_t>();
  by_dtype(vectors, "first_of_pair", [&](auto t) {
    using T = decltype(t);
    const T *r = vectors.const_data_ptr<T>(), *length = x.const_data_ptr<T>();
    const auto reverse = [&](int64_t a, int64_t b) {
      return from[b] == to[a] && length[a] == length[b] && r[3 * a] == -r[3 * b] && r[3 * a + 1] == -r[3 * b + 1] &&
             r[3 * a + 2] == -r[3 * b + 2];
    };
    parallel(edges, 1024, [&](int64_t begin, int64_t end) {
      for (int64_t e = begin; e < end; ++e) {
        const int64_t *other = numbers + starts[from[e]], *const last = numbers + starts[from[e] + 1];
        while (other < last && *other < e && !reverse(e, *other)) ++other;
        firsts[e] = other < last && *other < e ? *other : e;
      }
    });
  });
  for (int64_t e = 0; e < edges; ++e)
    if (firsts[firsts[e]] != firsts[e]) firsts[e] = e;
  return first;
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("first_of_pair", TORCH_BOX(&nf::first_of_pair_cpu));
  lib.impl("visiting_order", TORCH_BOX(&nf::visiting_order_cpu));
}
