#include "cpu/conv/conv.h"

#include <algorithm>
#include <compare>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "cpu/conv/kernels.h"

namespace nf {
namespace {

constexpr int64_t kEdgesPerTask = 64;  // fewer are not worth waking a thread for
constexpr int kMaxTile = 8;  // edges whose rows of x and w share the first-level cache; measured best of 4, 8, 16

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Cache-line aligned scratch; contents undefined.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const size_t bytes = (std::max<int64_t>(count, 1) * sizeof(T) + 63) / 64 * 64;
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    if (!data_) throw std::bad_alloc();
  }
  T* get() const { return data_.get(); }

 private:
  std::unique_ptr<T, Free> data_;
};

// How one side's rows (x or out) look channel-last.
class Layout {
 public:
  explicit Layout(int lanes) : lanes_(lanes) {}

  // Channel-last offset of the segment [mul][n] at `offset` of a row; the same segment may come many times.
  int place(int offset, int n, int mul) {
    for (const Segment& s : segments_)
      if (s.offset == offset && s.n == n && s.mul == mul) return s.at;
    const int padded = (mul + lanes_ - 1) / lanes_ * lanes_;
    segments_.push_back({offset, n, mul, padded, width_});
    width_ += n * padded;
    covered_ += n * mul;
    return segments_.back().at;
  }

  template <class T>
  void to_channels_last(const ConvKernels<T>& kernels, const T* row, T* to) const {
    for (const Segment& s : segments_) kernels.channels_last(row + s.offset, to + s.at, s.n, s.mul, s.padded);
  }

  // Elements of the row that no segment covers become zero.
  template <class T>
  void to_row(const ConvKernels<T>& kernels, const T* from, T* row, int dim) const {
    if (covered_ < dim) std::memset(row, 0, sizeof(T) * dim);
    for (const Segment& s : segments_) kernels.channels_first(from + s.at, row + s.offset, s.n, s.mul, s.padded);
  }

  int64_t width() const { return width_; }

 private:
  struct Segment {
    int offset, n, mul, padded, at;
  };
  int lanes_, width_ = 0, covered_ = 0;
  std::vector<Segment> segments_;
};

int64_t grain(const ConvGraph& graph) {
  return std::max<int64_t>(1, kEdgesPerTask * graph.nodes / std::max<int64_t>(graph.edges, 1));
}

template <class T>
Scratch<T> nodes_channels_last(const ConvKernels<T>& kernels, const Layout& layout, int64_t nodes, int dim,
                               const T* rows, const ParallelFor& parallel) {
  Scratch<T> all(nodes * layout.width());
  parallel(nodes, std::max<int64_t>(1, 16384 / std::max(dim, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      layout.to_channels_last(kernels, rows + i * dim, all.get() + i * layout.width());
  });
  return all;
}

// One path: its kernel and where its segments are.
template <class Function>
struct Step {
  Function run;
  PathArgs args;
};

template <class Function>
std::vector<Step<Function>> plan(const std::vector<ConvPath>& paths, const Function (&table)[kMaxL + 1][kMaxL + 1][kMaxL + 1],
                                 Layout& layout_x, Layout& layout_out) {
  std::vector<Step<Function>> steps;
  for (const ConvPath& p : paths) {
    const int x = layout_x.place(p.x, 2 * p.l1 + 1, p.mul), out = layout_out.place(p.out, 2 * p.l3 + 1, p.mul);
    steps.push_back({table[p.l1][p.l2][p.l3], {p.mul, x, p.y, p.w, out, p.coefficient}});
  }
  return steps;
}

// Walks the edges of a receiver tile by tile and collects what the kernels read of them.
template <class T>
class Tiles {
 public:
  Tiles(const ConvGraph& graph, const ConvShape& shape, const Layout& layout_x, const T* x_last, const T* y, const T* w,
        int lanes)
      : graph_(graph), shape_(shape), x_(x_last), y_(y), w_(w), x_width_(layout_x.width()), lanes_(lanes),
        harmonics_(int64_t(shape.dim_y) * lanes), x_rows_(lanes), w_rows_(lanes), next_w_rows_(lanes) {
    std::fill_n(harmonics_.get(), int64_t(shape.dim_y) * lanes, T(0));
  }

  // body(tile, the edge numbers of the tile)
  template <class Body>
  void for_each(int64_t node, const Body& body) {
    const int64_t end = graph_.ptr[node + 1];
    for (int64_t first = graph_.ptr[node]; first < end; first += size()) {
      const int64_t* edges = graph_.order + first;
      const int count = int(std::min<int64_t>(size(), end - first));
      for (int e = 0; e < count; ++e) {
        x_rows_[e] = x_ + graph_.from[edges[e]] * x_width_;
        w_rows_[e] = w_ + edges[e] * shape_.dim_w;
        const T* y = y_ + edges[e] * shape_.dim_y;
        for (int c = 0; c < shape_.dim_y; ++c) harmonics_.get()[c * lanes_ + e] = y[c];
      }
      for (int e = 0; e < count; ++e) {
        const int64_t next = std::min(first + size() + e, graph_.ptr[graph_.nodes] - 1);
        next_w_rows_[e] = w_ + graph_.order[next] * shape_.dim_w;
      }
      body(Tile<T>{count, harmonics_.get(), x_rows_.data(), w_rows_.data(), next_w_rows_.data()}, edges);
    }
  }

 private:
  int size() const { return std::min(lanes_, kMaxTile); }

  const ConvGraph& graph_;
  const ConvShape& shape_;
  const T *x_, *y_, *w_;
  int64_t x_width_;
  int lanes_;
  Scratch<T> harmonics_;
  std::vector<const T*> x_rows_, w_rows_, next_w_rows_;
};

// Some elements of a row: where they begin, how many, and their degree.
struct Block {
  int begin, size, l;
  auto operator<=>(const Block&) const = default;
};

// The kernels write each block once, so two of them are apart or, where `repeats`, the same.
bool apart(std::vector<Block> blocks, bool repeats) {
  std::sort(blocks.begin(), blocks.end());
  for (size_t k = 1; k < blocks.size(); ++k) {
    const Block &a = blocks[k - 1], &b = blocks[k];
    if (b.begin < a.begin + a.size && !(repeats && a == b)) return false;
  }
  return true;
}

}  // namespace

void check_paths(const std::vector<ConvPath>& paths, const ConvShape& shape) {
  const auto inside = [](int offset, int size, int dim) { return offset >= 0 && size >= 0 && offset + size <= dim; };
  for (const ConvPath& p : paths) {
    const bool degrees = p.l1 >= 0 && p.l1 <= kMaxL && p.l2 >= 0 && p.l2 <= kMaxL && p.l3 >= std::abs(p.l1 - p.l2) &&
                         p.l3 <= std::min(kMaxL, p.l1 + p.l2);
    const bool fits = inside(p.x, p.mul * (2 * p.l1 + 1), shape.dim_x) && inside(p.y, 2 * p.l2 + 1, shape.dim_y) &&
                      inside(p.w, p.mul, shape.dim_w) && inside(p.out, p.mul * (2 * p.l3 + 1), shape.dim_out);
    if (!degrees || !fits)
      throw std::runtime_error("conv: path (" + std::to_string(p.l1) + ", " + std::to_string(p.l2) + ", " +
                                  std::to_string(p.l3) + ") does not fit the rows given");
  }
  std::vector<Block> x, w, out;
  for (const ConvPath& p : paths) {
    x.push_back({p.x, p.mul * (2 * p.l1 + 1), p.l1});
    w.push_back({p.w, p.mul, 0});
    out.push_back({p.out, p.mul * (2 * p.l3 + 1), p.l3});
  }
  if (!apart(x, true) || !apart(w, false) || !apart(out, true))
    throw std::runtime_error("conv: paths overlap; each needs weights of its own, and irreps that do not cross");
}

template <class T>
void conv(const ConvGraph& graph, const ConvShape& shape, const std::vector<ConvPath>& paths, const T* x, const T* y,
          const T* w, T* out, const ParallelFor& parallel) {
  const ConvKernels<T>& kernels = conv_kernels<T>();
  Layout layout_x(kernels.lanes), layout_out(kernels.lanes);
  const auto steps = plan(paths, kernels.gather, layout_x, layout_out);
  const Scratch<T> x_last = nodes_channels_last(kernels, layout_x, shape.nodes_x, shape.dim_x, x, parallel);

  parallel(graph.nodes, grain(graph), [&](int64_t begin, int64_t end) {
    Tiles<T> tiles(graph, shape, layout_x, x_last.get(), y, w, kernels.lanes);
    Scratch<T> sums(layout_out.width());
    for (int64_t i = begin; i < end; ++i) {
      std::fill_n(sums.get(), layout_out.width(), T(0));
      tiles.for_each(i, [&](const Tile<T>& tile, const int64_t*) {
        const GatherTile<T> gather{tile, sums.get()};
        for (const auto& step : steps) step.run(gather, step.args);
      });
      layout_out.to_row(kernels, sums.get(), out + i * shape.dim_out, shape.dim_out);
    }
  });
}

template <class T>
void conv_edge_grad(const ConvGraph& graph, const ConvShape& shape, const std::vector<ConvPath>& paths, const T* x,
                    const T* g, const T* y, const T* w, T* dy, T* dw, const ParallelFor& parallel) {
  const ConvKernels<T>& kernels = conv_kernels<T>();
  Layout layout_x(kernels.lanes), layout_out(kernels.lanes);
  const auto steps = plan(paths, kernels.edge, layout_x, layout_out);
  int weights_covered = 0;
  for (const ConvPath& p : paths) weights_covered += p.mul;
  const Scratch<T> x_last = nodes_channels_last(kernels, layout_x, shape.nodes_x, shape.dim_x, x, parallel);

  parallel(graph.nodes, grain(graph), [&](int64_t begin, int64_t end) {
    const int64_t partial_row = int64_t(shape.dim_y) * kernels.lanes;
    Tiles<T> tiles(graph, shape, layout_x, x_last.get(), y, w, kernels.lanes);
    Scratch<T> g_last(layout_out.width()), partial(partial_row * kernels.lanes);
    std::vector<T*> dw_rows(kernels.lanes);
    for (int64_t i = begin; i < end; ++i) {
      layout_out.to_channels_last(kernels, g + i * shape.dim_out, g_last.get());
      tiles.for_each(i, [&](const Tile<T>& tile, const int64_t* edges) {
        std::fill_n(partial.get(), partial_row * tile.edges, T(0));
        for (int e = 0; e < tile.edges; ++e) {
          dw_rows[e] = dw + edges[e] * shape.dim_w;
          if (weights_covered < shape.dim_w) std::fill_n(dw_rows[e], shape.dim_w, T(0));
        }
        const EdgeTile<T> edge{tile, g_last.get(), dw_rows.data(), partial.get(), shape.dim_y};
        for (const auto& step : steps) step.run(edge, step.args);
        for (int e = 0; e < tile.edges; ++e)
          kernels.sum_dy(partial.get() + e * partial_row, dy + edges[e] * shape.dim_y, shape.dim_y);
      });
    }
  });
}

#define NF_INSTANTIATE(T)                                                                                             \
  template void conv<T>(const ConvGraph&, const ConvShape&, const std::vector<ConvPath>&, const T*, const T*,         \
                        const T*, T*, const ParallelFor&);                                                            \
  template void conv_edge_grad<T>(const ConvGraph&, const ConvShape&, const std::vector<ConvPath>&, const T*,         \
                                  const T*, const T*, const T*, T*, T*, const ParallelFor&);
NF_INSTANTIATE(float)
NF_INSTANTIATE(double)

}  // namespace nf
