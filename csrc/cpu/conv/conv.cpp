#include "cpu/conv/conv.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "cpu/conv/steps.h"
#include "cpu/padded.h"
#include "cpu/scratch.h"

namespace nf {
namespace {

constexpr int64_t kEdgesPerTask = 64;  // fewer are not worth waking a thread for
constexpr size_t kCacheLine = 64;
constexpr int kAheadBytes = 1024;  // of a row of w: far enough for memory to answer, near enough to stay in the cache
constexpr int64_t kStreamBytes = 4 << 20;  // a gradient of w beyond is written past the caches
constexpr int kMaxTile = 8;  // edges whose rows of x and w share the first-level cache; measured best of 4, 8, 16

template <class T>
Scratch<T> zeros(int64_t count) {
  Scratch<T> scratch(count);
  std::fill_n(scratch.get(), count, T(0));
  return scratch;
}

// How one side's rows (x or out) look channel-last.
class Layout {
 public:
  Layout(int lanes, int dim) : lanes_(lanes), dim_(dim) {}

  // Channel-last offset of the segment [mul][n] at `offset` of a row; the same segment may come many times.
  int place(int offset, int n, int mul) {
    for (const Segment& s : segments_)
      if (s.offset == offset && s.n == n && s.mul == mul) return s.at;
    const int stride = padded(mul, lanes_);
    segments_.push_back({offset, n, mul, stride, width_});
    width_ += n * stride;
    covered_ += n * mul;
    return segments_.back().at;
  }

  template <class T>
  void to_channels_last(const ConvKernels<T>& kernels, const T* row, T* to) const {
    for (const Segment& s : segments_) kernels.channels_last(row + s.offset, to + s.at, s.n, s.mul, s.stride);
  }

  // Elements of the row that no segment covers become zero.
  template <class T>
  void to_row(const ConvKernels<T>& kernels, const T* from, T* row) const {
    if (covered_ < dim_) std::memset(row, 0, sizeof(T) * dim_);
    for (const Segment& s : segments_) kernels.channels_first(from + s.at, row + s.offset, s.n, s.mul, s.stride);
  }

  int64_t width() const { return width_; }
  int dim() const { return dim_; }

 private:
  struct Segment {
    int offset, n, mul, stride, at;
  };
  int lanes_, dim_, width_ = 0, covered_ = 0;
  std::vector<Segment> segments_;
};

// What the kernels do for a problem, worked out once for an element type and an instruction set.
template <class T>
struct Plan {
  const ConvKernels<T>& kernels;
  Layout x, out;
  std::vector<GatherStep<T>> forward, back;  // back: from out to x, the paths transposed
  std::vector<GradientStep<T>> gradient;
  int64_t scratch = 0;  // elements the kernels need to themselves
  bool whole_lines;     // the weights of every path are whole cache lines, where w begins with one

  Plan(const ConvProblem& problem, const ConvKernels<T>& kernels_)
      : kernels(kernels_), x(kernels_.lanes, problem.dim_x), out(kernels_.lanes, problem.dim_out),
        whole_lines(problem.dim_w * sizeof(T) % kCacheLine == 0) {
    for (const ConvPath& p : problem.paths) {
      const int at_x = x.place(p.x, 2 * p.l1 + 1, p.mul), at_out = out.place(p.out, 2 * p.l3 + 1, p.mul);
      const int stride = padded(p.mul, kernels.lanes);
      const int ahead = p.w + std::min(problem.dim_w, kAheadBytes / int(sizeof(T)));
      const bool in_next = ahead >= problem.dim_w;
      const auto args = [&](int from, int to, double c) {
        return PathArgs{p.mul, from, p.y, p.w, p.w_stride, to, stride, stride, in_next ? ahead - problem.dim_w : ahead,
                        in_next, c, {}};
      };
      const PathArgs straight = args(at_x, at_out, p.coefficient);
      forward.push_back(gather_step(kernels, p.l1, p.l2, p.l3, straight));
      gradient.push_back(gradient_step(kernels, p.l1, p.l2, p.l3, straight));
      const double transposed = p.coefficient * transposed_sign(p.l1, p.l2, p.l3);
      back.push_back(gather_step(kernels, p.l3, p.l2, p.l1, args(at_out, at_x, transposed)));
      scratch = std::max(scratch, nf::scratch(gradient.back(), kernels.lanes));
      whole_lines &= p.weighted() && p.w * sizeof(T) % kCacheLine == 0 && p.mul * sizeof(T) % kCacheLine == 0;
    }
  }

  static const Plan& of(const ConvProblem& problem) {
    static std::mutex mutex;
    static std::map<std::pair<const ConvProblem*, const ConvKernels<T>*>, Plan> known;
    const ConvKernels<T>& kernels = conv_kernels<T>();
    const std::lock_guard lock(mutex);
    return known.try_emplace({&problem, &kernels}, problem, kernels).first->second;
  }
};

// Rows of a matrix; of one that is all zeros (stride 0) only the row that they share.
template <class T>
struct Rows {
  const T* data;
  int64_t stride;
  const T* operator[](int64_t i) const { return data + i * stride; }
};

// Rows of nodes, channel-last.
template <class T>
class NodeRows {
 public:
  // `each_thread`: every thread makes all of them for itself.
  NodeRows(const Plan<T>& plan, const Layout& layout, int64_t nodes, const T* rows, bool each_thread,
           const ParallelFor& parallel)
      : plan_(plan), layout_(layout), nodes_(rows ? nodes : 1), rows_(rows), each_thread_(each_thread && rows),
        common_(each_thread_ ? 0 : nodes_ * layout.width()) {
    if (!rows) std::fill_n(common_.get(), layout.width(), T(0));
    else if (!each_thread)
      parallel(nodes, std::max<int64_t>(1, 16384 / std::max(layout.dim(), 1)),
               [&](int64_t begin, int64_t end) { convert(begin, end, common_.get()); });
  }

  // What one thread reads.
  class OfThread {
   public:
    explicit OfThread(const NodeRows& all) : own_(all.each_thread_ ? all.nodes_ * all.layout_.width() : 0) {
      if (all.each_thread_) all.convert(0, all.nodes_, own_.get());
      rows_ = {all.each_thread_ ? own_.get() : all.common_.get(), all.rows_ ? all.layout_.width() : 0};
    }
    const T* operator[](int64_t node) const { return rows_[node]; }

   private:
    Scratch<T> own_;
    Rows<T> rows_;
  };

 private:
  void convert(int64_t begin, int64_t end, T* to) const {
    for (int64_t i = begin; i < end; ++i)
      layout_.to_channels_last(plan_.kernels, rows_ + i * layout_.dim(), to + i * layout_.width());
  }

  const Plan<T>& plan_;
  const Layout& layout_;
  int64_t nodes_;
  const T* rows_;
  bool each_thread_;
  Scratch<T> common_;
};

// Whether every thread converts the rows of all nodes for itself, so that the threads need not wait for each other: where
// each has many more edges to work on.
bool each_for_itself(int64_t nodes, int64_t edges, const Threads& threads) { return 8 * nodes * threads.count <= edges; }

// The operands of all edges: x by node, y and w by edge.
template <class T>
struct Operands {
  const NodeRows<T>& x;
  Rows<T> y, w;
};

// Collects for the kernels what they read of a tile's edges, always in the same place.
template <class T>
class TileOf {
 public:
  TileOf(const ConvKernels<T>& kernels, const Operands<T>& operands, int dim_y)
      : kernels_(kernels), x_of_node_(operands.x), y_of_edge_(operands.y), w_of_edge_(operands.w), dim_y_(dim_y),
        y_(int64_t(dim_y) * kernels.lanes) {}

  TileRows<T> rows() const { return {y_.get(), x_, w_, next_w_}; }

  void collect(const int64_t* edges, int count, const int64_t* x_of_edge, const int64_t* next, int next_count) {
    const T* y[kMaxTile];
    for (int e = 0; e < count; ++e) {
      x_[e] = x_of_node_[x_of_edge[edges[e]]];
      y[e] = y_of_edge_[edges[e]];
      w_[e] = w_of_edge_[edges[e]];
      next_w_[e] = e < next_count ? w_of_edge_[next[e]] : w_[e];
    }
    kernels_.collect(y, count, dim_y_, y_.get());
  }

 private:
  const ConvKernels<T>& kernels_;
  typename NodeRows<T>::OfThread x_of_node_;
  Rows<T> y_of_edge_, w_of_edge_;
  int dim_y_;
  Scratch<T> y_;
  const T *x_[kMaxTile], *w_[kMaxTile], *next_w_[kMaxTile];
};

// The tiles of the edges of a node. `tangent` is null where nothing is differentiated.
template <class T>
class Tiles {
 public:
  Tiles(const Walk& walk, const int64_t* x_of_edge, const Plan<T>& plan, const Operands<T>& at, const Operands<T>* tangent,
        int dim_y)
      : walk_(walk), x_of_edge_(x_of_edge), size_(std::min(plan.kernels.lanes, kMaxTile)), at_(plan.kernels, at, dim_y),
        scratch_(plan.scratch) {
    if (tangent) tangent_.emplace(plan.kernels, *tangent, dim_y);
  }

  // What for_each fills, one tile after the other.
  Tile<T> tile() const { return {0, at_.rows(), tangent_ ? tangent_->rows() : at_.rows(), scratch_.get()}; }

  // body(the edge numbers of the tile) for each tile of the node, whose number of edges is put into `edges`
  template <class Body>
  void for_each(int64_t node, int& edges, const Body& body) {
    const int64_t end = walk_.ptr[node + 1], last = walk_.ptr[walk_.nodes];
    for (int64_t first = walk_.ptr[node]; first < end; first += size_) {
      const int64_t* numbers = walk_.order + first;
      const int count = int(std::min<int64_t>(size_, end - first));
      const int next = int(std::min<int64_t>(size_, last - first - count));
      at_.collect(numbers, count, x_of_edge_, numbers + count, next);
      if (tangent_) tangent_->collect(numbers, count, x_of_edge_, numbers + count, next);
      edges = count;
      body(numbers);
    }
  }

 private:
  const Walk& walk_;
  const int64_t* x_of_edge_;
  int size_;
  TileOf<T> at_;
  std::optional<TileOf<T>> tangent_;
  Scratch<T> scratch_;
};

int64_t grain(const Walk& walk, int64_t edges) {
  return std::max<int64_t>(1, kEdgesPerTask * walk.nodes / std::max<int64_t>(edges, 1));
}

// out [walk.nodes, dim] from rows of nodes in `layout_in`, and y and w: conv and, with paths transposed, its adjoint.
template <class T>
void gather(const Walk& walk, int64_t edges, const int64_t* in_of_edge, const Plan<T>& plan,
            const std::vector<GatherStep<T>>& steps, const Operands<T>& at,
            const Operands<T>* tangent, const Layout& layout_out, int dim_y, T* out, const ParallelFor& parallel) {
  parallel(walk.nodes, grain(walk, edges), [&](int64_t begin, int64_t end) {
    Tiles<T> tiles(walk, in_of_edge, plan, at, tangent, dim_y);
    Scratch<T> sums(layout_out.width());
    GatherTile<T> tile{tiles.tile(), sums.get()};
    for (int64_t i = begin; i < end; ++i) {
      std::fill_n(sums.get(), layout_out.width(), T(0));
      tiles.for_each(i, tile.edges, [&](const int64_t*) {
        for (const auto& step : steps) step.run[tangent != nullptr](tile, step.args);
      });
      layout_out.to_row(plan.kernels, sums.get(), out + i * layout_out.dim());
    }
  });
}

// Rows by edge as the kernels take them: those given or, where null, the zeros that all edges share.
template <class T>
Rows<T> edge_rows(const T* rows, int dim, const Scratch<T>& zero) {
  return rows ? Rows<T>{rows, dim} : Rows<T>{zero.get(), 0};
}

}  // namespace

template <class T>
void conv(const ConvGraph& graph, const ConvProblem& problem, const ConvPoint<T>& at, const ConvTangent<T>& along, T* out,
          const Threads& threads) {
  const Plan<T>& plan = Plan<T>::of(problem);
  const ParallelFor& parallel = threads.parallel;
  const int64_t nodes_x = graph.by_sender.nodes;
  const bool each_thread = each_for_itself(nodes_x, graph.edges, threads);
  const NodeRows<T> x(plan, plan.x, nodes_x, at.x, each_thread, parallel);
  const Operands<T> point{x, {at.y, problem.dim_y}, {at.w, problem.dim_w}};
  const auto run = [&](const Operands<T>* tangent) {
    gather(graph.by_receiver, graph.edges, graph.sender, plan, plan.forward, point, tangent, plan.out, problem.dim_y, out,
           parallel);
  };
  if (along.none()) return run(nullptr);
  const Scratch<T> zero = zeros<T>(std::max(problem.dim_y, problem.dim_w));
  const NodeRows<T> dx(plan, plan.x, nodes_x, along.x, each_thread, parallel);
  const Operands<T> tangent{dx, edge_rows(along.y, problem.dim_y, zero), edge_rows(along.w, problem.dim_w, zero)};
  run(&tangent);
}

template <class T>
void conv_gradient(const ConvGraph& graph, const ConvProblem& problem, const ConvPoint<T>& at, const ConvTangent<T>& along,
                   const T* g, const ConvGradient<T>& to, const Threads& threads) {
  if (!to.x && !to.y && !to.w) return;  // without edges the gradients of y and w have no memory either
  const Plan<T>& plan = Plan<T>::of(problem);
  const ParallelFor& parallel = threads.parallel;
  const int dim_y = problem.dim_y, dim_w = problem.dim_w, lanes = plan.kernels.lanes;
  const int64_t nodes_x = graph.by_sender.nodes, nodes_g = graph.by_receiver.nodes;
  const bool each_thread = each_for_itself(std::max(nodes_x, nodes_g), graph.edges, threads);
  const Scratch<T> zero = zeros<T>(std::max(dim_y, dim_w));
  const Rows<T> y{at.y, dim_y}, w{at.w, dim_w};
  const Rows<T> dy = edge_rows(along.y, dim_y, zero), dw = edge_rows(along.w, dim_w, zero);
  const NodeRows<T> g_rows(plan, plan.out, nodes_g, g, each_thread, parallel);
  const bool has_tangent = !along.none();
  if (!to.y && !to.w) {  // x alone: conv with transposed paths; a tangent of x does not matter to it
    const NodeRows<T> no_tangent(plan, plan.out, 1, static_cast<const T*>(nullptr), each_thread, parallel);
    const Operands<T> point{g_rows, y, w}, tangent{no_tangent, dy, dw};
    return gather(graph.by_sender, graph.edges, graph.receiver, plan, plan.back, point, has_tangent ? &tangent : nullptr,
                  plan.x, dim_y, to.x, parallel);
  }
  const NodeRows<T> x(plan, plan.x, nodes_x, at.x, each_thread, parallel);
  const NodeRows<T> dx(plan, plan.x, nodes_x, along.x, each_thread, parallel);
  const Operands<T> point{x, y, w}, tangent{dx, dy, dw};
  // by sender, so that the gradient of x is a sum in one place; by receiver where nobody asks for it, which as a rule
  // is the order of w in memory
  const Walk& walk = to.x ? graph.by_sender : graph.by_receiver;
  const bool stream_w = to.w && plan.whole_lines && reinterpret_cast<uintptr_t>(to.w) % kCacheLine == 0 &&
                        graph.edges * dim_w * int64_t(sizeof(T)) >= kStreamBytes;
  parallel(walk.nodes, grain(walk, graph.edges), [&](int64_t begin, int64_t end) {
    const int64_t partial_row = int64_t(dim_y) * lanes;
    Tiles<T> tiles(walk, graph.sender, plan, point, has_tangent ? &tangent : nullptr, dim_y);
    const typename NodeRows<T>::OfThread g_of_node(g_rows);
    Scratch<T> x_sums(plan.x.width()), y_partial(partial_row * kMaxTile), unwanted(dim_w);
    const T* g_of_edge[kMaxTile];
    T *w_rows[kMaxTile], *x_rows[kMaxTile];
    std::fill_n(x_rows, kMaxTile, x_sums.get());  // by sender: the edges of a tile have one
    GradientTile<T> tile{tiles.tile(), g_of_edge, to.x ? x_rows : nullptr, y_partial.get(), w_rows, dim_y, stream_w};
    for (int64_t i = begin; i < end; ++i) {
      std::fill_n(x_sums.get(), plan.x.width(), T(0));
      tiles.for_each(i, tile.edges, [&](const int64_t* edges) {
        std::fill_n(y_partial.get(), partial_row * tile.edges, T(0));
        for (int e = 0; e < tile.edges; ++e) {
          g_of_edge[e] = g_of_node[graph.receiver[edges[e]]];
          w_rows[e] = to.w ? to.w + edges[e] * dim_w : unwanted.get();
          if (!problem.covers_w) std::fill_n(w_rows[e], dim_w, T(0));
        }
        for (const auto& step : plan.gradient) step.run[has_tangent](tile, step.args);
        for (int e = 0; to.y && e < tile.edges; ++e)
          plan.kernels.sum_dy(y_partial.get() + e * partial_row, to.y + edges[e] * dim_y, dim_y);
      });
      if (to.x) plan.x.to_row(plan.kernels, x_sums.get(), to.x + i * problem.dim_x);
    }
    plan.kernels.end_stream();
  });
}

#define NF_INSTANTIATE(T)                                                                                          \
  template void conv<T>(const ConvGraph&, const ConvProblem&, const ConvPoint<T>&, const ConvTangent<T>&, T*,      \
                        const Threads&);                                                                           \
  template void conv_gradient<T>(const ConvGraph&, const ConvProblem&, const ConvPoint<T>&, const ConvTangent<T>&, \
                                 const T*, const ConvGradient<T>&, const Threads&);
NF_INSTANTIATE(float)
NF_INSTANTIATE(double)

}  // namespace nf
