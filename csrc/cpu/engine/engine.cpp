#include "cpu/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "cpu/engine/edges.h"
#include "cpu/engine/layers.h"

namespace nf {
namespace {

// Nodes are taken together, and of them one path after the other, so that a path's table is in the second cache when it
// is needed again; as many as leave room beside it: backward, partial sums of every edge.
constexpr int kChunkNodes = 64, kForwardEdges = 1536, kReverseEdges = 900;

std::vector<int64_t> all_degrees(int l_max) {
  std::vector<int64_t> degrees;
  for (int l = 0; l <= l_max; ++l) degrees.push_back(l);
  return degrees;
}

struct NodeTile {  // as many edges of one node as a vector has lanes, or what is left
  int node, edges;
  int64_t first;
};

// What a thread works with.
template <class T>
struct Work {
  Buffer<T> y, summed, row, weights, slopes, to_weights, partial, scratch, sent_gradient;
  Buffer<double> forces, strain;
  std::vector<NodeTile> tiles;
  std::vector<const T*> from, x_of_edge, w_rows;
  std::vector<T*> to, dx_of_edge, dw_rows;
  std::vector<const T*> g_rows;
  std::vector<int> members;
};

template <class T>
class EngineOf final : public Engine {
 public:
  explicit EngineOf(const Program& program)
      : kernels_(engine_kernels<T>()), conv_(conv_kernels<T>()), harmonic_kernels_(harmonic_kernels<T>()),
        harmonics_(all_degrees(program.l_max), HarmonicScale::component, true),
        radii_{program.types, program.intervals, program.cutoff}, scale_(program.scale), shift_(program.shift),
        repulsion_(program.repulsion) {
    layers_.reserve(program.layers.size());
    for (const LayerProgram& layer : program.layers) layers_.emplace_back(layer, program, conv_);
    sent_.resize(layers_.size());
    before_gate_.resize(layers_.size());
    // The readout reads rows of scalar segments with padding in between.
    const RowLayout& features = layers_.back().out;
    int inner = features.width;
    std::vector<int> place;
    for (const Segment& s : features.segments)
      for (int u = 0; u < s.mul; ++u) place.push_back(s.at + u);
    for (const ReadoutLayer& layer : program.readout) {
      const int width = (layer.out + kernels_.lanes - 1) / kernels_.lanes * kernels_.lanes;
      Matrix<T> forward(inner, width), reverse(layer.out, (inner + kernels_.lanes - 1) / kernels_.lanes * kernels_.lanes);
      for (int i = 0; i < layer.in; ++i)
        for (int j = 0; j < layer.out; ++j) {
          const int row = place.empty() ? i : place[i];
          forward.at(row, j) = reverse.at(j, row) = T(layer.matrix[int64_t(i) * layer.out + j]);
        }
      readout_.push_back({std::move(forward), std::move(reverse),
                          {0, -1, 0, width, 1, layer.activation, 1.0}});
      inner = layer.out;
      place.clear();
    }
  }

  void evaluate(const EngineInput& in, const EngineOutput& out, int threads, const ParallelFor& parallel) override {
    const std::lock_guard lock(mutex_);
    input_ = &in;
    output_ = &out;
    work_.resize(threads);
    const auto each_thread = [&](const auto& body) {
      parallel(threads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) body(int(t));
      });
    };
    check();
    split(threads);
    find_edges(each_thread);
    reserve_rows();
    for (size_t k = 0; k < layers_.size(); ++k)
      each_thread([&](int t) { each_chunk(t, kForwardEdges, [&](int64_t begin, int64_t end) { forward(k, work_[t], begin, end); }); });
    if (repulsion_) each_thread([&](int t) { repel(share_[t], share_[t + 1]); });
    if (!out.forces) return;
    for (size_t k = layers_.size(); k-- > 0;) reverse(k, each_thread);
    gather_forces(each_thread);
  }

 private:
  struct Readout {
    Matrix<T> forward, reverse;
    ChannelGate activation;
  };

  // --- input ---

  void check() const {
    const EngineInput& in = *input_;
    double sum = 0;
    for (int64_t i = 0; i < 3 * in.atoms; ++i) sum += in.positions[i];
    if (!std::isfinite(sum)) throw std::runtime_error("a position is not finite; check the structure or the time step");
    for (int64_t i = 0; i < in.atoms; ++i) {
      if (in.types[i] < 0 || in.types[i] >= radii_.types) throw std::runtime_error("an atom type is unknown to this potential");
      if (in.structure[i] < 0 || in.structure[i] >= in.structures)
        throw std::runtime_error("engine: a structure is out of range");
    }
    if (in.ptr[0] != 0) throw std::runtime_error("engine: the pairs do not begin at 0");
    for (int64_t i = 0; i < in.atoms; ++i)
      if (in.ptr[i] > in.ptr[i + 1]) throw std::runtime_error("engine: the pairs are not in order");
    for (int64_t p = 0; p < in.ptr[in.atoms]; ++p)
      if (in.neighbour[p] < 0 || in.neighbour[p] >= in.atoms)
        throw std::runtime_error("engine: a pair names an atom out of range");
  }

  // Nodes begin … of each thread, about the same number of pairs for all; it does not depend on what is fastest today,
  // so that two runs give the same bits.
  void split(int threads) {
    const EngineInput& in = *input_;
    share_.assign(threads + 1, in.atoms);
    share_[0] = 0;
    const int64_t total = in.ptr[in.atoms] + in.atoms;
    int t = 1;
    for (int64_t i = 0; i < in.atoms && t < threads; ++i)
      while (t < threads && (in.ptr[i] + i) * threads >= total * t) share_[t++] = i;
  }

  template <class Body>
  void each_chunk(int t, int most_edges, const Body& body) const {
    for (int64_t begin = share_[t]; begin < share_[t + 1];) {
      int64_t end = begin + 1;
      while (end < share_[t + 1] && end - begin < kChunkNodes && edges_.ptr[end + 1] - edges_.ptr[begin] <= most_edges)
        ++end;
      body(begin, end);
      begin = end;
    }
  }

  template <class EachThread>
  void find_edges(const EachThread& each_thread) {
    const EngineInput& in = *input_;
    const EdgeSearch<T> search{in, radii_, harmonics_, harmonic_kernels_};
    std::atomic<const char*> failed = nullptr;  // threads must not throw
    edges_.ptr.assign(in.atoms + 1, 0);
    each_thread([&](int t) {
      if (const char* what = search.count(share_[t], share_[t + 1], edges_)) failed = what;
    });
    if (const char* what = failed) throw std::runtime_error(what);
    edges_.reserve(harmonics_.dim());
    each_thread([&](int t) { search.fill(share_[t], share_[t + 1], edges_); });
  }

  void reserve_rows() {
    const int64_t atoms = input_->atoms;
    int width = 0;
    for (size_t k = 0; k < layers_.size(); ++k) {
      sent_[k].get(k ? atoms * layers_[k].sent.width : 0);
      before_gate_[k].get(atoms * layers_[k].before_gate.width);
      width = std::max(width, layers_[k].out.width);
    }
    for (Buffer<T>* features : {&features_[0], &features_[1], &to_features_}) features->get(atoms * width);
  }

  // --- dense parts: rows of nodes begin … end − 1, or of `members` counted from begin ---

  // to (+)= from · matrix for one segment each; rows by node number less `from_first`, `to_first`
  void multiply(Work<T>& work, const Matrix<T>& matrix, int inner, const Segment& from, const T* rows, int row_width,
                const Segment& to, T* out, int out_width, const int* members, int count) const {
    work.from.clear(), work.to.clear();
    for (int i = 0; i < count; ++i) {
      const int64_t node = members ? members[i] : i;
      for (int m = 0; m < from.components; ++m) {
        work.from.push_back(rows + node * row_width + from.at + m * from.padded);
        work.to.push_back(out + node * out_width + to.at + m * to.padded);
      }
    }
    kernels_.multiply(int(work.from.size()), work.from.data(), inner, matrix.data.get(), matrix.width, work.to.data(),
                      true);
  }

  void apply(Work<T>& work, const PreparedMap<T>& map, int copy, const RowLayout& from, const T* rows,
             const RowLayout& to, T* out, const int* members, int count) const {
    const Segment &a = from.segments[map.from], &b = to.segments[map.to];
    multiply(work, map.forward[copy], a.inner, a, rows, from.width, b, out, to.width, members, count);
  }
  void apply_reverse(Work<T>& work, const PreparedMap<T>& map, int copy, const RowLayout& to, const T* g,
                     const RowLayout& from, T* out, const int* members, int count) const {
    const Segment &a = from.segments[map.from], &b = to.segments[map.to];
    multiply(work, map.reverse[copy], b.mul, b, g, to.width, a, out, from.width, members, count);
  }

  // body(type, members, count) for the nodes of each type among begin … end − 1, counted from begin
  template <class Body>
  void by_type(Work<T>& work, int64_t begin, int64_t end, const Body& body) const {
    std::vector<int>& members = work.members;
    members.resize(end - begin);
    for (int i = 0; i < int(members.size()); ++i) members[i] = i;
    const int64_t* types = input_->types + begin;
    std::stable_sort(members.begin(), members.end(), [&](int a, int b) { return types[a] < types[b]; });
    for (size_t first = 0, last; first < members.size(); first = last) {
      for (last = first + 1; last < members.size() && types[members[last]] == types[members[first]];) ++last;
      body(int(types[members[first]]), members.data() + first, int(last - first));
    }
  }

  // body(matrix number, members, count) for nodes begin … end − 1: of each type, or for all at once
  template <class Body>
  void grouped(bool types, Work<T>& work, int64_t begin, int64_t end, const Body& body) const {
    types ? by_type(work, begin, end, body) : body(0, nullptr, int(end - begin));
  }

  // --- the convolution ---

  const T* sent_row(size_t k, int64_t node) const {
    const int64_t width = layers_[k].sent.width;
    return k ? sent_[k].get() + node * width : layers_[k].sent_by_type.get() + input_->types[node] * width;
  }

  // The tiles of nodes begin … end − 1, their harmonics in columns, and the senders' rows.
  void collect(size_t k, Work<T>& work, int64_t begin, int64_t end) const {
    const int lanes = kernels_.lanes, dim_y = harmonics_.dim();
    const int64_t first = edges_.ptr[begin], last = edges_.ptr[end];
    work.tiles.clear();
    for (int64_t i = begin; i < end; ++i)
      for (int64_t e = edges_.ptr[i]; e < edges_.ptr[i + 1]; e += lanes)
        work.tiles.push_back({int(i - begin), int(std::min<int64_t>(lanes, edges_.ptr[i + 1] - e)), e});
    T* y = work.y.get(int64_t(work.tiles.size()) * dim_y * lanes);
    for (const NodeTile& tile : work.tiles) {
      kernels_.columns(edges_.y.get() + tile.first * dim_y, dim_y, tile.edges, y);
      y += dim_y * lanes;
    }
    work.x_of_edge.resize(last - first);
    for (int64_t e = first; e < last; ++e) work.x_of_edge[e - first] = sent_row(k, edges_.neighbour.get()[e]);
    work.scratch.get(layers_[k].scratch);
    work.w_rows.resize(lanes), work.dw_rows.resize(lanes);
  }

  // What the kernels see of tile number `index`.
  Tile<T> tile_of(Work<T>& work, size_t index, int64_t first) const {
    const NodeTile& tile = work.tiles[index];
    const TileRows<T> rows{work.y.get() + int64_t(index) * harmonics_.dim() * kernels_.lanes,
                           work.x_of_edge.data() + (tile.first - first), work.w_rows.data(), work.w_rows.data()};
    return {tile.edges, rows, rows, work.scratch.get()};
  }

  void sum_over_neighbours(size_t k, Work<T>& work, int64_t begin, int64_t end, T* summed) const {
    const PreparedLayer<T>& layer = layers_[k];
    const int64_t first = edges_.ptr[begin];
    collect(k, work, begin, end);
    for (const PreparedPath<T>& path : layer.paths) {
      T* w = work.weights.get(int64_t(kernels_.lanes) * path.width);
      for (int e = 0; e < kernels_.lanes; ++e) work.w_rows[e] = w + e * path.width;
      for (size_t index = 0; index < work.tiles.size(); ++index) {
        const NodeTile& tile = work.tiles[index];
        kernels_.weights(edges_.at.get() + tile.first, tile.edges, path.table.get(), path.width, w);
        path.forward.run[0]({tile_of(work, index, first), summed + int64_t(tile.node) * layer.summed.width},
                            path.forward.args);
      }
    }
  }

  // From the gradient of the sums to those of the senders' rows (`to_sent`, by node; null: not wanted), of the
  // harmonics and of the distances.
  void sum_over_neighbours_vjp(size_t k, Work<T>& work, int64_t begin, int64_t end, const T* g, T* to_sent) {
    const PreparedLayer<T>& layer = layers_[k];
    const int lanes = kernels_.lanes, dim_y = harmonics_.dim();
    const int64_t first = edges_.ptr[begin], count = edges_.ptr[end] - first;
    collect(k, work, begin, end);
    if (to_sent) {
      work.dx_of_edge.resize(count);
      for (int64_t e = 0; e < count; ++e)
        work.dx_of_edge[e] = to_sent + edges_.neighbour.get()[first + e] * layer.sent.width;
    }
    T* partial = work.partial.zeros(count * dim_y * lanes);
    work.g_rows.resize(lanes);
    int width = 0;
    for (const PreparedPath<T>& path : layer.paths) width = std::max(width, path.width);
    T *w = work.weights.get(int64_t(lanes) * width), *dw = work.to_weights.zeros(int64_t(lanes) * width),
      *slope = work.slopes.get(int64_t(lanes) * width);
    for (const PreparedPath<T>& path : layer.paths) {
      for (int e = 0; e < lanes; ++e) work.w_rows[e] = w + e * path.width, work.dw_rows[e] = dw + e * path.width;
      for (size_t index = 0; index < work.tiles.size(); ++index) {
        const NodeTile& tile = work.tiles[index];
        const int64_t at = tile.first - first;
        std::fill(work.g_rows.begin(), work.g_rows.end(), g + int64_t(tile.node) * layer.summed.width);
        kernels_.weights_and_slopes(edges_.at.get() + tile.first, tile.edges, path.table.get(), path.width, w, slope);
        const GradientTile<T> gradient{tile_of(work, index, first), work.g_rows.data(),
                                       to_sent ? work.dx_of_edge.data() + at : nullptr, partial + at * dim_y * lanes,
                                       work.dw_rows.data(), dim_y, false};
        path.gradient.run[0](gradient, path.gradient.args);
        kernels_.add_dot(dw, slope, tile.edges, path.width, edges_.to_length.get() + tile.first);
      }
    }
    kernels_.add_sums(partial, dim_y, int(count), edges_.to_y.get() + first * dim_y);
  }

  // --- a layer ---

  void forward(size_t k, Work<T>& work, int64_t begin, int64_t end) {
    const PreparedLayer<T>& layer = layers_[k];
    const int count = int(end - begin);
    T* summed = work.summed.zeros(int64_t(count) * layer.summed.width);
    sum_over_neighbours(k, work, begin, end, summed);
    T* before = before_gate_[k].get() + begin * layer.before_gate.width;
    const T* in = features_[(k + 1) % 2].get() + begin * layer.in.width;
    T* out = features_[k % 2].get() + begin * layer.out.width;
    for (int i = 0; i < count; ++i) {
      T* row = before + int64_t(i) * layer.before_gate.width;
      if (layer.has_bias)
        std::copy_n(layer.bias_by_type.get() + input_->types[begin + i] * layer.before_gate.width,
                    layer.before_gate.width, row);
      else
        std::fill_n(row, layer.before_gate.width, T(0));
    }
    for (const auto& map : layer.mix) apply(work, map, 0, layer.summed, summed, layer.before_gate, before, nullptr, count);
    grouped(!layer.self_connection.empty(), work, begin, end, [&](int type, const int* members, int n) {
      for (const auto& map : layer.self_connection)
        apply(work, map, type, layer.in, in, layer.before_gate, before, members, n);
    });
    for (int i = 0; i < count; ++i) {
      T* row = out + int64_t(i) * layer.out.width;
      for (const ChannelGate& gate : layer.gate)
        kernels_.gate(gate, before + int64_t(i) * layer.before_gate.width, row);
      if (layer.residual)
        for (int u = 0; u < layer.out.width; ++u) row[u] += in[int64_t(i) * layer.in.width + u];
    }
    if (k + 1 == layers_.size()) return read_out(work, begin, end, out);
    const PreparedLayer<T>& next = layers_[k + 1];
    T* sent = sent_[k + 1].get() + begin * next.sent.width;
    std::fill_n(sent, int64_t(count) * next.sent.width, T(0));
    grouped(next.send_by_type, work, begin, end, [&](int type, const int* members, int n) {
      for (const auto& map : next.send) apply(work, map, type, next.in, out, next.sent, sent, members, n);
    });
  }

  // Energies of nodes begin … end − 1 from their last features, and the gradients of these.
  void read_out(Work<T>& work, int64_t begin, int64_t end, const T* features) {
    const int width_in = layers_.back().out.width;
    int64_t width = 0;
    for (const Readout& layer : readout_) width += 2 * layer.forward.width + layer.reverse.width;
    T* memory = work.row.zeros(width);
    for (int64_t i = begin; i < end; ++i) {
      const T* x = features + (i - begin) * width_in;
      T* next = memory;
      for (const Readout& layer : readout_) {
        T *before = next, *after = next + layer.forward.width;
        kernels_.multiply(1, &x, layer.forward.inner, layer.forward.data.get(), layer.forward.width, &before, false);
        kernels_.gate(layer.activation, before, after);
        x = after;
        next = after + layer.forward.width;
      }
      const int64_t type = input_->types[i];
      output_->energies[i] = shift_[type] + scale_[type] * double(x[0]);
      if (!output_->forces) continue;
      T* g = memory + width;  // gradients of what each layer gives, from the end of the memory
      const T* below = next;
      T* to = to_features_.get() + i * width_in;
      std::vector<T> cotangent(readout_.back().forward.width, T(0)), pulled;
      cotangent[0] = T(scale_[type]);
      for (size_t k = readout_.size(); k-- > 0;) {
        const Readout& layer = readout_[k];
        below -= 2 * layer.forward.width;  // what went into the activation
        pulled.assign(layer.forward.width, T(0));
        kernels_.gate_vjp(layer.activation, below, cotangent.data(), pulled.data());
        g -= layer.reverse.width;
        const T* row = pulled.data();
        T* target = k ? g : to;
        kernels_.multiply(1, &row, layer.reverse.inner, layer.reverse.data.get(), layer.reverse.width, &target, false);
        if (k) cotangent.assign(g, g + layer.reverse.width);
      }
    }
  }

  // to_features_ holds the gradient of what layer k gives, and afterwards that of what it takes.
  template <class EachThread>
  void reverse(size_t k, const EachThread& each_thread) {
    const PreparedLayer<T>& layer = layers_[k];
    const int64_t atoms = input_->atoms;
    T* to_in = features_[0].get();  // the features themselves are not needed any more
    each_thread([&](int t) {
      Work<T>& work = work_[t];
      T* to_sent = k ? work.sent_gradient.zeros(atoms * layer.sent.width) : nullptr;
      each_chunk(t, kReverseEdges, [&](int64_t begin, int64_t end) {
        const int count = int(end - begin);
        T* g = work.row.zeros(int64_t(count) * layer.before_gate.width);
        const T* to_out = to_features_.get() + begin * layer.out.width;
        const T* before = before_gate_[k].get() + begin * layer.before_gate.width;
        for (int i = 0; i < count; ++i)
          for (const ChannelGate& gate : layer.gate)
            kernels_.gate_vjp(gate, before + int64_t(i) * layer.before_gate.width, to_out + int64_t(i) * layer.out.width,
                              g + int64_t(i) * layer.before_gate.width);
        T* to_summed = work.summed.zeros(int64_t(count) * layer.summed.width);
        for (const auto& map : layer.mix)
          apply_reverse(work, map, 0, layer.before_gate, g, layer.summed, to_summed, nullptr, count);
        sum_over_neighbours_vjp(k, work, begin, end, to_summed, to_sent);
        if (!k) return;
        T* to = to_in + begin * layer.in.width;
        if (layer.residual)
          std::copy_n(to_out, int64_t(count) * layer.in.width, to);
        else
          std::fill_n(to, int64_t(count) * layer.in.width, T(0));
        grouped(!layer.self_connection.empty(), work, begin, end, [&](int type, const int* members, int n) {
          for (const auto& map : layer.self_connection)
            apply_reverse(work, map, type, layer.before_gate, g, layer.in, to, members, n);
        });
      });
    });
    if (!k) return;
    each_thread([&](int t) {
      Work<T>& work = work_[t];
      each_chunk(t, kReverseEdges, [&](int64_t begin, int64_t end) {
        const int64_t first = begin * layer.sent.width, last = end * layer.sent.width;
        T* sum = work.summed.zeros(last - first);
        for (const Work<T>& other : work_)
          for (int64_t i = first; i < last; ++i) sum[i - first] += other.sent_gradient.get()[i];
        grouped(layer.send_by_type, work, begin, end, [&](int type, const int* members, int n) {
          for (const auto& map : layer.send)
            apply_reverse(work, map, type, layer.sent, sum, layer.in, to_in + begin * layer.in.width, members, n);
        });
      });
    });
    std::swap(to_features_, features_[0]);
  }

  // --- forces ---

  // (energy, slope) of an edge of node i
  std::pair<double, double> repulsion(int64_t i, int64_t e, double length) const {
    const int64_t a = input_->types[i], b = input_->types[edges_.neighbour.get()[e]];
    return (*repulsion_)(length, radii_.cutoff_of(a, b), repulsion_->numbers[a], repulsion_->numbers[b]);
  }

  double length(int64_t e) const {
    const double* r = edges_.vector.get() + 3 * e;
    return std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
  }

  void repel(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t e = edges_.ptr[i]; e < edges_.ptr[i + 1]; ++e)
        output_->energies[i] += repulsion(i, e, length(e)).first;
  }

  template <class EachThread>
  void gather_forces(const EachThread& each_thread) {
    const EngineInput& in = *input_;
    each_thread([&](int t) {
      Work<T>& work = work_[t];
      double *forces = work.forces.zeros(3 * in.atoms), *strain = work.strain.zeros(9 * in.structures);
      const int64_t first = edges_.ptr[share_[t]], last = edges_.ptr[share_[t + 1]];
      harmonic_kernels_.vjp(harmonics_, edges_.direction.get(), edges_.to_y.get(), edges_.to_direction.get(), first, last);
      for (int64_t i = share_[t]; i < share_[t + 1]; ++i)
        for (int64_t e = edges_.ptr[i]; e < edges_.ptr[i + 1]; ++e) {
          const double* r = edges_.vector.get() + 3 * e;
          const double size = length(e);
          double along = edges_.to_length.get()[e];
          if (repulsion_) along += repulsion(i, e, size).second;
          along /= size;
          for (int c = 0; c < 3; ++c) {
            const double g = edges_.to_direction.get()[3 * e + c] + along * r[c];
            forces[3 * i + c] += g;
            forces[3 * edges_.neighbour.get()[e] + c] -= g;
            for (int d = 0; d < 3; ++d) strain[9 * in.structure[i] + 3 * d + c] += r[d] * g;
          }
        }
    });
    std::fill_n(output_->forces, 3 * in.atoms, 0.0);
    std::fill_n(output_->strain, 9 * in.structures, 0.0);
    for (const Work<T>& work : work_) {
      for (int64_t i = 0; i < 3 * in.atoms; ++i) output_->forces[i] += work.forces.get()[i];
      for (int64_t i = 0; i < 9 * in.structures; ++i) output_->strain[i] += work.strain.get()[i];
    }
  }

  const EngineKernels<T>& kernels_;
  const ConvKernels<T>& conv_;
  const HarmonicKernels<T>& harmonic_kernels_;
  HarmonicProblem harmonics_;
  Radii radii_;
  std::vector<double> scale_, shift_;
  std::optional<Repulsion> repulsion_;
  std::vector<PreparedLayer<T>> layers_;
  std::vector<Readout> readout_;

  // of the call in progress
  std::mutex mutex_;
  const EngineInput* input_ = nullptr;
  const EngineOutput* output_ = nullptr;
  std::vector<int64_t> share_;
  Edges<T> edges_;
  std::vector<Work<T>> work_;
  std::vector<Buffer<T>> sent_, before_gate_;  // of each layer
  Buffer<T> features_[2], to_features_;
};

}  // namespace

template <class T>
std::unique_ptr<Engine> Engine::make(const Program& program) {
  return std::make_unique<EngineOf<T>>(program);
}
template std::unique_ptr<Engine> Engine::make<float>(const Program&);
template std::unique_ptr<Engine> Engine::make<double>(const Program&);

}  // namespace nf
