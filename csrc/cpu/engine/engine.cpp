#include "cpu/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "cpu/engine/convolution.h"
#include "cpu/engine/linear.h"
#include "cpu/engine/readout.h"

namespace nf {
namespace {

// Nodes are taken together, and of them one path after the other, so that a path's weights are in the second cache when
// they are needed again; as many as leave room beside them: backward, partial sums of every edge; with a radial network,
// its hidden layers.
constexpr int kChunkNodes = 64, kForwardEdges = 1536, kReverseEdges = 900, kForwardExact = 512, kReverseExact = 256;

constexpr int64_t kNodeWork = 7;  // what a node takes beside its edges, in edges

std::vector<int64_t> all_degrees(int l_max) {
  std::vector<int64_t> degrees;
  for (int l = 0; l <= l_max; ++l) degrees.push_back(l);
  return degrees;
}

// What a thread works with.
template <class T>
struct Work {
  ConvolutionWork<T> convolution;
  LinearWork<T> linear;
  Buffer<T> summed, row, to_direction, sent_gradient;
  Buffer<double> forces, strain;
  std::vector<int> members;
};

template <class T>
class EngineOf final : public Engine {
 public:
  explicit EngineOf(const Program& program)
      : kernels_(engine_kernels<T>()), harmonic_kernels_(harmonic_kernels<T>()),
        harmonics_(all_degrees(program.l_max), HarmonicScale::component, true),
        convolution_(kernels_, harmonic_kernels_, harmonics_), cutoffs_{program.types, program.cutoff},
        basis_(program.basis), scale_(program.scale), shift_(program.shift), repulsion_(program.repulsion),
        layers_(prepare(program, kernels_)), readout_(program.readout, layers_.back().out, kernels_),
        sent_(layers_.size()), before_gate_(layers_.size()) {
    for (const PreparedLayer<T>& layer : layers_) feature_width_ = std::max({feature_width_, layer.in.width, layer.out.width});
    if (!layers_[0].by_type) embedding_ = layers_[0].by_type_rows(program.embedding, layers_[0].in, program.types);
    edges_.functions = basis_ ? int(basis_->frequencies.size()) : 0;
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
    split(threads, in.ptr);
    find_edges(each_thread);
    split(threads, edges_.ptr.data());
    reserve_rows();
    if (!layers_[0].by_type) each_thread([&](int t) { embed(work_[t], share_[t], share_[t + 1]); });
    for (size_t k = 0; k < layers_.size(); ++k)
      each_thread([&](int t) {
        each_chunk(t, layers_[k].radial->exact() ? kForwardExact : kForwardEdges,
                   [&](int64_t begin, int64_t end) { forward(k, work_[t], begin, end); });
      });
    if (repulsion_) each_thread([&](int t) { repel(share_[t], share_[t + 1]); });
    if (!out.strain) return;
    for (size_t k = layers_.size(); k-- > 0;) reverse(k, each_thread);
    gather_forces(each_thread);
  }

 private:
  static std::vector<PreparedLayer<T>> prepare(const Program& program, const EngineKernels<T>& kernels) {
    std::vector<PreparedLayer<T>> layers;
    for (const LayerProgram& layer : program.layers) layers.emplace_back(layer, program, conv_kernels<T>(), kernels);
    return layers;
  }

  // --- input ---

  void check() const {
    const EngineInput& in = *input_;
    double sum = 0;
    for (int64_t i = 0; i < 3 * in.atoms; ++i) sum += in.positions[i];
    if (!std::isfinite(sum)) throw std::runtime_error("a position is not finite; check the structure or the time step");
    for (int64_t i = 0; i < in.atoms; ++i) {
      if (in.types[i] < 0 || in.types[i] >= cutoffs_.types) throw std::runtime_error("an atom type is unknown to this potential");
      if (in.structure[i] < 0 || in.structure[i] >= in.structures)
        throw std::runtime_error("engine: a structure is out of range");
    }
    if (in.atoms > std::numeric_limits<int32_t>::max()) throw std::runtime_error("engine: too many atoms");
    if (in.ptr[0] != 0) throw std::runtime_error("engine: the pairs do not begin at 0");
    for (int64_t i = 0; i < in.atoms; ++i)
      if (in.ptr[i] > in.ptr[i + 1]) throw std::runtime_error("engine: the pairs are not in order");
    for (int64_t p = 0; p < in.ptr[in.atoms]; ++p)
      if (in.neighbour[p] < 0 || in.neighbour[p] >= in.atoms)
        throw std::runtime_error("engine: a pair names an atom out of range");
  }

  // Nodes begin … of each thread, about the same work for all, where node i has ptr[i] … ptr[i + 1] − 1; it does not
  // depend on what is fastest today, so that two runs give the same bits.
  void split(int threads, const int64_t* ptr) {
    const int64_t atoms = input_->atoms;
    const auto work_before = [&](int64_t i) { return ptr[i] + kNodeWork * i; };
    share_.assign(threads + 1, atoms);
    share_[0] = 0;
    int t = 1;
    for (int64_t i = 0; i < atoms && t < threads; ++i)  // a node belongs where its middle lies
      while (t < threads && (work_before(i) + work_before(i + 1)) * threads >= 2 * work_before(atoms) * t) share_[t++] = i;
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
    const EdgeSearch<T> search{in, cutoffs_, basis_};
    std::atomic<const char*> failed = nullptr;  // threads must not throw
    edges_.ptr.assign(in.atoms + 1, 0);
    each_thread([&](int t) {
      if (const char* what = search.count(share_[t], share_[t + 1], edges_)) failed = what;
    });
    if (const char* what = failed) throw std::runtime_error(what);
    const int dim_y = output_->forces ? harmonics_.dim() : 0;
    edges_.reserve(dim_y);
    each_thread([&](int t) { search.fill(share_[t], share_[t + 1], dim_y, edges_); });
  }

  void reserve_rows() {
    const int64_t atoms = input_->atoms;
    for (size_t k = 0; k < layers_.size(); ++k) {
      sent_[k].get(layers_[k].by_type ? 0 : atoms * layers_[k].sent.width);
      before_gate_[k].get(atoms * layers_[k].before_gate.width);
    }
    features_.get(atoms * feature_width_);
  }

  // --- rows of nodes from `begin` on ---

  // Features on their way through the layers, later the gradients on their way back, in one place: only what is sent is
  // read by other nodes.
  Rows<T> features(const RowLayout& layout, int64_t begin) const {
    return {layout, features_.get() + begin * feature_width_, feature_width_};
  }
  Rows<T> before_gate(size_t k, int64_t begin) const {
    const RowLayout& layout = layers_[k].before_gate;
    return {layout, before_gate_[k].get() + begin * layout.width, layout.width};
  }
  static Rows<T> packed(const RowLayout& layout, T* data) { return {layout, data, layout.width}; }

  // body(type, members) for the nodes of each type among begin … end − 1, counted from begin
  template <class Body>
  void by_type(Work<T>& work, int64_t begin, int64_t end, const Body& body) const {
    std::vector<int>& members = work.members;
    members.resize(end - begin);
    for (int i = 0; i < int(members.size()); ++i) members[i] = i;
    const int64_t* types = input_->types + begin;
    std::stable_sort(members.begin(), members.end(), [&](int a, int b) { return types[a] < types[b]; });
    for (size_t first = 0, last; first < members.size(); first = last) {
      for (last = first + 1; last < members.size() && types[members[last]] == types[members[first]];) ++last;
      body(int(types[members[first]]), Members{members.data() + first, int(last - first)});
    }
  }

  // body(matrix number, members) for nodes begin … end − 1: of each type, or for all at once
  template <class Body>
  void grouped(bool types, Work<T>& work, int64_t begin, int64_t end, const Body& body) const {
    types ? by_type(work, begin, end, body) : body(0, Members{nullptr, int(end - begin)});
  }

  // --- a layer ---

  // body(row) with what node j sends in layer k
  auto sent(size_t k) const {
    return [this, &layer = layers_[k], rows = sent_[k].get()](int64_t j) -> const T* {
      const int64_t width = layer.sent.width;
      return layer.by_type ? layer.sent_by_type.get() + input_->types[j] * width : rows + j * width;
    };
  }

  void embed(Work<T>& work, int64_t begin, int64_t end) {
    const Rows<T> rows = features(layers_[0].in, begin);
    for (int64_t i = 0; i < end - begin; ++i)
      std::copy_n(embedding_.get() + input_->types[begin + i] * rows.layout.width, rows.layout.width, rows.data + i * rows.stride);
    send(0, work, begin, end);
  }

  // What nodes begin … end − 1 send in layer k, from their features.
  void send(size_t k, Work<T>& work, int64_t begin, int64_t end) {
    const PreparedLayer<T>& layer = layers_[k];
    T* rows = sent_[k].get() + begin * layer.sent.width;
    std::fill_n(rows, (end - begin) * layer.sent.width, T(0));
    grouped(layer.send_by_type, work, begin, end, [&](int type, Members members) {
      apply(kernels_, work.linear, layer.send, type, features(layer.in, begin), packed(layer.sent, rows), members);
    });
  }

  void forward(size_t k, Work<T>& work, int64_t begin, int64_t end) {
    const PreparedLayer<T>& layer = layers_[k];
    const int count = int(end - begin);
    T* summed = work.summed.zeros(int64_t(count) * layer.summed.width);
    convolution_.sum(layer, edges_, work.convolution, begin, end, sent(k), summed);
    const Rows<T> before = before_gate(k, begin);
    for (int i = 0; i < count; ++i) {
      if (layer.has_bias)
        std::copy_n(layer.bias_by_type.get() + input_->types[begin + i] * before.stride, before.stride, before.data + i * before.stride);
      else
        std::fill_n(before.data + i * before.stride, before.stride, T(0));
    }
    apply(kernels_, work.linear, layer.mix, 0, packed(layer.summed, summed), before, Members{nullptr, count});
    grouped(layer.connect_by_type, work, begin, end, [&](int type, Members members) {
      apply(kernels_, work.linear, layer.self_connection, type, features(layer.in, begin), before, members);
    });
    T* const activated = work.row.get(layer.out.width);
    for (int i = 0; i < count; ++i) {
      T* const row = features(layer.out, begin + i).data;
      for (const ChannelGate& gate : layer.gate) kernels_.gate(gate, before.data + i * before.stride, activated);
      for (int u = 0; u < layer.out.width; ++u) row[u] = layer.residual ? row[u] + activated[u] : activated[u];
    }
    if (k + 1 == layers_.size())
      read_out(work, begin, end);
    else
      send(k + 1, work, begin, end);
  }

  // Energies of nodes begin … end − 1 from their last features, and the gradients of these in their place.
  void read_out(Work<T>& work, int64_t begin, int64_t end) {
    T* memory = work.row.get(readout_.memory());
    for (int64_t i = begin; i < end; ++i) {
      T* const row = features(layers_.back().out, i).data;
      const double scale = scale_[input_->types[i]];
      output_->energies[i] = shift_[input_->types[i]] + scale * double(readout_.forward(row, memory));
      if (output_->forces) readout_.reverse(T(scale), memory, row);
    }
  }

  // From the gradients of what layer k gives to those of what it takes.
  template <class EachThread>
  void reverse(size_t k, const EachThread& each_thread) {
    const PreparedLayer<T>& layer = layers_[k];
    const int most = layer.radial->exact() ? kReverseExact : kReverseEdges;
    each_thread([&](int t) {
      Work<T>& work = work_[t];
      T* to_sent = k ? work.sent_gradient.zeros(input_->atoms * layer.sent.width) : nullptr;
      each_chunk(t, most, [&](int64_t begin, int64_t end) { reverse(k, work, begin, end, to_sent); });
    });
    if (!k) return;
    each_thread([&](int t) {
      Work<T>& work = work_[t];
      each_chunk(t, most, [&](int64_t begin, int64_t end) {
        const int64_t first = begin * layer.sent.width, last = end * layer.sent.width;
        T* sum = work.summed.zeros(last - first);
        for (const Work<T>& other : work_)
          for (int64_t i = first; i < last; ++i) sum[i - first] += other.sent_gradient.get()[i];
        grouped(layer.send_by_type, work, begin, end, [&](int type, Members members) {
          apply_reverse(kernels_, work.linear, layer.send, type, packed(layer.sent, sum), features(layer.in, begin), members);
        });
      });
    });
  }

  // All of it but the way back through what is sent, whose gradients are added to `to_sent`.
  void reverse(size_t k, Work<T>& work, int64_t begin, int64_t end, T* to_sent) {
    const PreparedLayer<T>& layer = layers_[k];
    const int count = int(end - begin);
    const Rows<T> before = before_gate(k, begin), out = features(layer.out, begin), in = features(layer.in, begin);
    const Rows<T> g = packed(layer.before_gate, work.row.zeros(int64_t(count) * before.stride));
    for (int i = 0; i < count; ++i)
      for (const ChannelGate& gate : layer.gate)
        kernels_.gate_vjp(gate, before.data + i * before.stride, out.data + i * out.stride, g.data + i * g.stride);
    T* to_summed = work.summed.zeros(int64_t(count) * layer.summed.width);
    apply_reverse(kernels_, work.linear, layer.mix, 0, g, packed(layer.summed, to_summed), Members{nullptr, count});
    convolution_.reverse(layer, edges_, work.convolution, begin, end, sent(k), to_summed, to_sent);
    if (!k) return;
    if (!layer.residual)
      for (int i = 0; i < count; ++i) std::fill_n(in.data + i * in.stride, layer.in.width, T(0));
    grouped(layer.connect_by_type, work, begin, end, [&](int type, Members members) {
      apply_reverse(kernels_, work.linear, layer.self_connection, type, g, in, members);
    });
  }

  // --- forces ---

  // (energy, slope) of an edge of node i
  std::pair<double, double> repulsion(int64_t i, int64_t e, double length) const {
    const int64_t a = input_->types[i], b = input_->types[edges_.neighbour.get()[e]];
    return (*repulsion_)(length, cutoffs_(a, b), repulsion_->numbers[a], repulsion_->numbers[b]);
  }

  void repel(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t e = edges_.ptr[i]; e < edges_.ptr[i + 1]; ++e)
        output_->energies[i] += repulsion(i, e, edges_.length(e)).first;
  }

  template <class EachThread>
  void gather_forces(const EachThread& each_thread) {
    const EngineInput& in = *input_;
    each_thread([&](int t) {
      Work<T>& work = work_[t];
      work.forces.zeros(3 * in.atoms), work.strain.zeros(9 * in.structures);
      each_chunk(t, kForwardEdges, [&](int64_t begin, int64_t end) { pull_on_atoms(work, begin, end); });
    });
    std::fill_n(output_->forces, 3 * in.atoms, 0.0);
    std::fill_n(output_->strain, 9 * in.structures, 0.0);
    for (const Work<T>& work : work_) {
      for (int64_t i = 0; i < 3 * in.atoms; ++i) output_->forces[i] += work.forces.get()[i];
      for (int64_t i = 0; i < 9 * in.structures; ++i) output_->strain[i] += work.strain.get()[i];
    }
  }

  // The forces along the edges of nodes begin … end − 1, and their part of the strain derivative.
  void pull_on_atoms(Work<T>& work, int64_t begin, int64_t end) const {
    const EngineInput& in = *input_;
    double *forces = work.forces.get(), *strain = work.strain.get();
    const int64_t first = edges_.ptr[begin], count = edges_.ptr[end] - first;
    T* to_direction = work.to_direction.get(3 * count);
    harmonic_kernels_.vjp(harmonics_, directions(edges_, first, count, work.convolution.direction),
                          edges_.to_y.get() + first * harmonics_.dim(), to_direction, 0, count);
    for (int64_t i = begin; i < end; ++i)
      for (int64_t e = edges_.ptr[i]; e < edges_.ptr[i + 1]; ++e) {
        const double *r = edges_.vector.get() + 3 * e, length = edges_.length(e);
        double along = edges_.to_reach.get()[e] * edges_.reach.get()[e] / length;
        if (repulsion_) along += repulsion(i, e, length).second;
        along /= length;
        for (int c = 0; c < 3; ++c) {
          const double g = to_direction[3 * (e - first) + c] + along * r[c];
          forces[3 * i + c] += g;
          forces[3 * edges_.neighbour.get()[e] + c] -= g;
          for (int d = 0; d < 3; ++d) strain[9 * in.structure[i] + 3 * d + c] += r[d] * g;
        }
      }
  }

  const EngineKernels<T>& kernels_;
  const HarmonicKernels<T>& harmonic_kernels_;
  const HarmonicProblem harmonics_;
  const Convolution<T> convolution_;
  const Cutoffs cutoffs_;
  const std::optional<RadialBasis> basis_;
  const std::vector<double> scale_, shift_;
  const std::optional<Repulsion> repulsion_;
  const std::vector<PreparedLayer<T>> layers_;
  const Readout<T> readout_;
  Scratch<T> embedding_{0};
  int feature_width_ = 0;

  // of the call in progress
  std::mutex mutex_;
  const EngineInput* input_ = nullptr;
  const EngineOutput* output_ = nullptr;
  std::vector<int64_t> share_;
  Edges<T> edges_;
  std::vector<Work<T>> work_;
  std::vector<Buffer<T>> sent_, before_gate_;  // of each layer
  Buffer<T> features_;
};

}  // namespace

template <class T>
std::unique_ptr<Engine> Engine::make(const Program& program) {
  return std::make_unique<EngineOf<T>>(program);
}
template std::unique_ptr<Engine> Engine::make<float>(const Program&);
template std::unique_ptr<Engine> Engine::make<double>(const Program&);

}  // namespace nf
