// The sum over neighbours of a chunk of nodes, one path after the other, and its reverse pass.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/engine/edges.h"
#include "cpu/engine/layers.h"
#include "cpu/spherical_harmonics/harmonics.h"

namespace nf {

// What a thread works with.
template <class T>
struct ConvolutionWork {
  struct Tile {  // as many edges of one node as a vector has lanes, or what is left
    int node, edges;
    int64_t first;
  };

  RadialWork<T> radial;
  Buffer<T> direction, y_rows, y, weights, to_weights, partial, scratch;
  std::vector<Tile> tiles;
  std::vector<const T*> x_of_edge, w_rows, g_rows;
  std::vector<T*> dx_of_edge, dw_rows;
};

// Directions [count, 3] of edges from `first` on.
template <class T>
T* directions(const Edges<T>& edges, int64_t first, int64_t count, Buffer<T>& memory) {
  T* r = memory.get(3 * count);
  for (int64_t i = 0; i < 3 * count; ++i) r[i] = T(edges.vector.get()[3 * first + i]);
  return r;
}

template <class T>
class Convolution {
 public:
  Convolution(const EngineKernels<T>& kernels, const HarmonicKernels<T>& harmonic_kernels, const HarmonicProblem& harmonics)
      : kernels_(kernels), harmonic_kernels_(harmonic_kernels), harmonics_(harmonics) {}

  // summed[node − begin] += Σ over edges of nodes begin … end − 1; sent(j): the row that node j sends.
  template <class Sent>
  void sum(const PreparedLayer<T>& layer, const Edges<T>& edges, ConvolutionWork<T>& work, int64_t begin, int64_t end,
           const Sent& sent, T* summed) const {
    const int64_t first = edges.ptr[begin];
    collect(layer, edges, work, begin, end, sent);
    const auto chunk = of_radial(edges, work, begin, end, false);
    layer.radial->begin(chunk);
    T* w = work.weights.get(room(layer));
    each_run(layer, work, first, [&](int path_number, size_t tile, size_t last, int at, int count) {
      const PreparedPath<T>& path = layer.paths[path_number];
      layer.radial->weights(chunk, path_number, at, count, w);
      for (const T* rows = w; tile < last; rows += work.tiles[tile++].edges * path.width) {
        for (int e = 0; e < kernels_.lanes; ++e) work.w_rows[e] = rows + e * path.width;
        path.forward.run[0]({tile_of(work, tile, first), summed + int64_t(work.tiles[tile].node) * layer.summed.width},
                            path.forward.args);
      }
    });
  }

  // From the gradient of the sums to those of the senders' rows (`to_sent`, by node; null: not wanted), of the
  // harmonics and of the distances.
  template <class Sent>
  void reverse(const PreparedLayer<T>& layer, Edges<T>& edges, ConvolutionWork<T>& work, int64_t begin, int64_t end,
               const Sent& sent, const T* to_summed, T* to_sent) const {
    const int lanes = kernels_.lanes, dim_y = harmonics_.dim();
    const int64_t first = edges.ptr[begin], count = edges.ptr[end] - first;
    collect(layer, edges, work, begin, end, sent);
    const auto chunk = of_radial(edges, work, begin, end, true);
    layer.radial->begin(chunk);
    if (to_sent) {
      work.dx_of_edge.resize(count);
      for (int64_t e = 0; e < count; ++e)
        work.dx_of_edge[e] = to_sent + edges.neighbour.get()[first + e] * int64_t(layer.sent.width);
    }
    T* partial = work.partial.zeros(count * dim_y * lanes);
    T *w = work.weights.get(room(layer)), *dw = work.to_weights.zeros(room(layer));  // of padding, too
    each_run(layer, work, first, [&](int path_number, size_t tile, size_t last, int at, int edges_of_run) {
      const PreparedPath<T>& path = layer.paths[path_number];
      layer.radial->weights(chunk, path_number, at, edges_of_run, w);
      for (int64_t row = 0; tile < last; row += work.tiles[tile++].edges * path.width) {
        for (int e = 0; e < lanes; ++e)
          work.w_rows[e] = w + row + e * path.width, work.dw_rows[e] = dw + row + e * path.width;
        std::fill(work.g_rows.begin(), work.g_rows.end(), to_summed + int64_t(work.tiles[tile].node) * layer.summed.width);
        const int64_t edge = work.tiles[tile].first - first;
        const GradientTile<T> gradient{tile_of(work, tile, first), work.g_rows.data(),
                                       to_sent ? work.dx_of_edge.data() + edge : nullptr, partial + edge * dim_y * lanes,
                                       work.dw_rows.data(), dim_y, false};
        path.gradient.run[0](gradient, path.gradient.args);
      }
      layer.radial->take(chunk, path_number, at, edges_of_run, dw);
    });
    layer.radial->end(chunk, edges.to_reach.get());
    kernels_.add_sums(partial, dim_y, int(count), edges.to_y.get() + first * dim_y);
  }

 private:
  static typename Radial<T>::Chunk of_radial(const Edges<T>& edges, ConvolutionWork<T>& work, int64_t begin, int64_t end,
                                             bool gradients) {
    return {edges, edges.ptr[begin], int(edges.ptr[end] - edges.ptr[begin]), work.radial, gradients};
  }

  // For the weights of a run of tiles, the last of which may be cut short.
  int64_t room(const PreparedLayer<T>& layer) const {
    return int64_t(layer.radial->most_edges + kernels_.lanes) * layer.widest;
  }

  // The tiles of nodes begin … end − 1, their harmonics in columns, and the senders' rows.
  template <class Sent>
  void collect(const PreparedLayer<T>& layer, const Edges<T>& edges, ConvolutionWork<T>& work, int64_t begin,
               int64_t end, const Sent& sent) const {
    const int lanes = kernels_.lanes, dim_y = harmonics_.dim();
    const int64_t first = edges.ptr[begin], count = edges.ptr[end] - first;
    list_tiles(edges, work, begin, end, layer.radial->exact());
    T* const rows = work.y_rows.get(count * dim_y);
    harmonic_kernels_.harmonics(harmonics_, directions(edges, first, count, work.direction), rows, 0, count);
    T* y = work.y.get(int64_t(work.tiles.size()) * dim_y * lanes);
    for (const auto& tile : work.tiles) {
      kernels_.columns(rows + (tile.first - first) * dim_y, dim_y, tile.edges, y);
      y += dim_y * lanes;
    }
    work.x_of_edge.resize(count);
    for (int64_t e = 0; e < count; ++e) work.x_of_edge[e] = sent(edges.neighbour.get()[first + e]);
    work.scratch.get(layer.scratch);
    work.w_rows.resize(lanes), work.dw_rows.resize(lanes), work.g_rows.resize(lanes);
  }

  // The tiles of nodes begin … end − 1, by node or, as edges go from near to far, by distance: tiles in turn then read the
  // same few knots of the radial tables, which stay in the first cache.
  void list_tiles(const Edges<T>& edges, ConvolutionWork<T>& work, int64_t begin, int64_t end, bool by_node) const {
    const int lanes = kernels_.lanes;
    work.tiles.clear();
    const auto add = [&](int64_t node, int64_t edge) {
      const int count = int(std::min<int64_t>(lanes, edges.ptr[node + 1] - edge));
      work.tiles.push_back({int(node - begin), count, edge});
      return count;
    };
    if (by_node) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t e = edges.ptr[i]; e < edges.ptr[i + 1]; e += lanes) add(i, e);
      return;
    }
    int64_t left = edges.ptr[end] - edges.ptr[begin];
    for (int64_t away = 0; left; away += lanes)
      for (int64_t i = begin; i < end; ++i)
        if (const int64_t e = edges.ptr[i] + away; e < edges.ptr[i + 1]) left -= add(i, e);
  }

  // body(path, tile, last tile, edge of the chunk, edges) for as many tiles in a row as the radial weights want
  template <class Body>
  static void each_run(const PreparedLayer<T>& layer, const ConvolutionWork<T>& work, int64_t first, const Body& body) {
    for (int path = 0; path < int(layer.paths.size()); ++path)
      for (size_t tile = 0; tile < work.tiles.size();) {
        size_t last = tile;
        int count = 0;
        do
          count += work.tiles[last++].edges;
        while (last < work.tiles.size() && work.tiles[last].first == work.tiles[tile].first + count &&
               count + work.tiles[last].edges <= layer.radial->most_edges);
        body(path, tile, last, int(work.tiles[tile].first - first), count);
        tile = last;
      }
  }

  // What the kernels see of tile number `index`.
  Tile<T> tile_of(ConvolutionWork<T>& work, size_t index, int64_t first) const {
    const auto& tile = work.tiles[index];
    const TileRows<T> rows{work.y.get() + int64_t(index) * harmonics_.dim() * kernels_.lanes,
                           work.x_of_edge.data() + (tile.first - first), work.w_rows.data(), work.w_rows.data()};
    return {tile.edges, rows, rows, work.scratch.get()};
  }

  const EngineKernels<T>& kernels_;
  const HarmonicKernels<T>& harmonic_kernels_;
  const HarmonicProblem& harmonics_;
};

}  // namespace nf
