// A tile of rows goes through all layers, and back, while it is in the caches; nothing is kept between the operators,
// since the hidden layers, often one that takes a few numbers, are made again in less time than they are read.
//
// With z = (h below) A, h = after · f(before · z): factors of the products are moved to where activations are computed.
#include "cpu/mlp/mlp.h"

#include <algorithm>
#include <vector>

#include "cpu/mlp/kernels.h"
#include "cpu/padded.h"
#include "cpu/scratch.h"
#include "cpu/tensor_product/kernels.h"

namespace nf {
namespace {

constexpr int kTile = 96;  // rows: blocks of products are 6 by 4 vectors
constexpr int kRowsPerTask = 64;

// Rows in memory, `stride` apart.
template <class T>
struct Rows {
  const T* at;
  int stride;
};

// Rows of `width` numbers, zeros behind them up to `stride`.
template <class T>
void copy_rows(Rows<T> from, int rows, int width, T* to, int stride) {
  for (int i = 0; i < rows; ++i, to += stride) {
    std::copy_n(from.at + int64_t(i) * from.stride, width, to);
    std::fill(to + width, to + stride, T(0));
  }
}

// The different rows, and where each stands: row k at members[ptr[k]], its own place, … members[ptr[k + 1] − 1].
class Places {
 public:
  Places(int64_t rows, const int64_t* first) : rows_(rows) {
    if (!first) return;
    std::vector<int64_t> number(rows);  // of the row that stands at each place
    rows_ = 0;
    for (int64_t e = 0; e < rows; ++e) number[e] = first[e] == e ? rows_++ : number[first[e]];
    ptr_.assign(rows_ + 1, 0);
    for (int64_t k : number) ++ptr_[k + 1];
    for (int64_t k = 0; k < rows_; ++k) ptr_[k + 1] += ptr_[k];
    std::vector<int64_t> next(ptr_);
    members_.resize(rows);
    for (int64_t e = 0; e < rows; ++e) members_[next[number[e]]++] = e;
  }

  int64_t rows() const { return rows_; }
  bool repeat() const { return !ptr_.empty(); }
  // body(place, whether it is the row's own) for each of row k
  template <class Body>
  void each(int64_t k, const Body& body) const {
    if (!repeat()) return body(k, true);
    for (int64_t i = ptr_[k]; i < ptr_[k + 1]; ++i) body(members_[i], i == ptr_[k]);
  }
  int64_t own(int64_t k) const { return repeat() ? members_[ptr_[k]] : k; }

 private:
  int64_t rows_;
  std::vector<int64_t> ptr_, members_;
};

template <class T>
struct Layer {
  int in, out, in_padded, out_padded;  // widths; in whole vectors
  Activation activation;
  T before, after;
  int64_t sums;                // where its gradient begins in a thread's, [in][out_padded] each
  const T* matrix;             // [in][out_padded]
  Scratch<T> own, transposed;  // what `matrix` points to where the weights are not padded; [out][in_padded]
};

template <class T>
struct Network {
  const ProductKernels<T>& products = product_kernels<T>();
  const MlpKernels<T>& kernels = mlp_kernels<T>();
  std::vector<Layer<T>> layers;
  int widest_hidden = 0;  // of inputs and hidden layers, padded
  int64_t sums = 0;       // how many numbers gradients by weights take

  Network(const MlpProblem& problem, const T* w, bool backward) {
    const int lanes = products.lanes;
    int in = problem.dim_in;
    for (size_t k = 0; k < problem.layers.size(); ++k) {
      const MlpLayer& l = problem.layers[k];
      const int in_padded = padded(in, lanes), out_padded = padded(l.width, lanes);
      Layer<T> layer{in, l.width, in_padded, out_padded, l.activation, T(k ? 1 : l.factor),
                     T(k + 1 < problem.layers.size() ? problem.layers[k + 1].factor : 1), sums, w,
                     Scratch<T>(l.width == out_padded ? 0 : int64_t(in) * out_padded),
                     Scratch<T>(backward ? int64_t(l.width) * in_padded : 0)};
      if (l.width != out_padded) {
        layer.matrix = layer.own.get();
        copy_rows(Rows<T>{w, l.width}, in, l.width, layer.own.get(), out_padded);
      }
      if (backward) kernels.transpose(w, in, l.width, layer.transposed.get(), in_padded);
      w += int64_t(in) * l.width;
      sums += int64_t(in) * out_padded;
      widest_hidden = std::max(widest_hidden, in_padded);
      in = l.width;
      layers.push_back(std::move(layer));
    }
  }
};

// A thread's work on one tile after the other: `rows` of the different rows from `at` on.
template <class T>
class Tile {
 public:
  // `weight_sums`: where gradients by weights are added up, null where they are not wanted
  Tile(const Network<T>& network, const Places& places, T* weight_sums)
      : network_(network), places_(places), last_(network.layers.size() - 1), sums_(weight_sums),
        ends_(room(network.layers[last_].out_padded)), to_value_(room(network.widest_hidden)),
        to_tangent_(room(network.widest_hidden)), next_(room(network.widest_hidden)),
        own_x_(room(places.repeat() ? network.layers[0].in : 0)),
        own_d_(room(places.repeat() ? network.layers[0].in : 0)) {
    for (size_t k = 0; k < last_; ++k) {
      const int width = network.layers[k].out_padded;
      hidden_.push_back({room(width), room(width), room(width), room(width), room(width)});
    }
  }

  void values(int64_t at, int rows, const T* x, T* out) {
    up(at, rows, x, nullptr, 0);
    write_last(input(last_), out);
  }

  void gradient(int64_t at, int rows, const T* x, const T* g, T* dx) {
    up(at, rows, x, nullptr, 1);
    Rows<T> to = cotangents(g);
    for (size_t k = last_;; --k) {
      add_to_weights(k, input(k), to);
      if (k == 0) break;
      to = down(k, to, to_value_);
      network_.kernels.multiply(to_value_.get(), hidden_[k - 1].first.get(), rows * to.stride, to_value_.get());
    }
    if (dx) write_first(to, dx);
  }

  void gradient_tangent(int64_t at, int rows, const T* x, const T* g, const T* d, T* dx, T* to_g) {
    up(at, rows, x, d, 2);
    write_last(tangent(last_), to_g);
    Rows<T> to_tangent = cotangents(g), to_value{nullptr, 0};  // of the last layer's value there is none
    for (size_t k = last_;; --k) {
      add_to_weights(k, tangent(k), to_tangent);
      if (to_value.at) add_to_weights(k, input(k), to_value);
      if (k == 0) break;
      const Hidden& below = hidden_[k - 1];
      to_tangent = down(k, to_tangent, to_tangent_);
      const int numbers = rows * to_tangent.stride;
      if (to_value.at) down(k, to_value, to_value_);
      else std::fill_n(to_value_.get(), numbers, T(0));
      to_value = {to_value_.get(), to_tangent.stride};
      network_.kernels.reverse(below.first.get(), below.second.get(), below.z_tangent.get(), numbers, to_value_.get(),
                               to_tangent_.get());
    }
    if (dx) write_first(to_value, dx);
  }

 private:
  struct Hidden {
    Scratch<T> value, first, second, z_tangent, tangent;  // [rows][out_padded]
  };

  static Scratch<T> room(int width) { return Scratch<T>(int64_t(kTile) * width); }

  // What layer k takes, and its derivative along the tangent.
  Rows<T> input(size_t k) const {
    return k ? Rows<T>{hidden_[k - 1].value.get(), network_.layers[k].in_padded} : Rows<T>{x_, network_.layers[0].in};
  }
  Rows<T> tangent(size_t k) const {
    return k ? Rows<T>{hidden_[k - 1].tangent.get(), network_.layers[k].in_padded} : Rows<T>{d_, network_.layers[0].in};
  }

  // to [rows][width] = from · b [depth][width], width in whole vectors
  void product(Rows<T> from, int depth, const T* b, int width, T* to) const {
    network_.products.multiply({rows_, depth, width / network_.products.lanes, from.at, from.stride, 1, false, b, width, to,
                                width, false});
  }

  // The tile's rows of x or of its tangent, side by side.
  const T* own_rows(const T* all, Scratch<T>& memory) const {
    const int width = network_.layers[0].in;
    if (!places_.repeat()) return all + at_ * width;
    for (int i = 0; i < rows_; ++i) std::copy_n(all + places_.own(at_ + i) * width, width, memory.get() + i * width);
    return memory.get();
  }

  // The hidden layers, with as many derivatives of the activations as `order` says and, with two, along the tangent.
  void up(int64_t at, int rows, const T* x, const T* tangent_of_x, int order) {
    at_ = at, rows_ = rows;
    x_ = own_rows(x, own_x_);
    if (tangent_of_x) d_ = own_rows(tangent_of_x, own_d_);
    for (size_t k = 0; k < last_; ++k) {
      const Layer<T>& layer = network_.layers[k];
      const Hidden& h = hidden_[k];
      const int numbers = rows * layer.out_padded;
      product(input(k), layer.in, layer.matrix, layer.out_padded, h.value.get());
      network_.kernels.activate(layer.activation, order, h.value.get(), numbers, layer.before, layer.after, h.value.get(),
                                h.first.get(), h.second.get());
      if (order < 2) continue;
      product(tangent(k), layer.in, layer.matrix, layer.out_padded, h.z_tangent.get());
      network_.kernels.multiply(h.first.get(), h.z_tangent.get(), numbers, h.tangent.get());
    }
  }

  // Back through the matrix of layer k; `from` may stand in the buffer that takes the result.
  Rows<T> down(size_t k, Rows<T> from, Scratch<T>& to) {
    const Layer<T>& layer = network_.layers[k];
    product(from, layer.out, layer.transposed.get(), layer.in_padded, next_.get());
    std::swap(next_, to);
    return {to.get(), layer.in_padded};
  }

  void add_to_weights(size_t k, Rows<T> from, Rows<T> cotangent) const {
    if (!sums_) return;
    const Layer<T>& layer = network_.layers[k];
    network_.products.multiply({layer.in, rows_, layer.out_padded / network_.products.lanes, from.at, 1, from.stride, false,
                                cotangent.at, cotangent.stride, sums_ + layer.sums, layer.out_padded, true});
  }

  void write_last(Rows<T> from, T* out) const {
    const Layer<T>& layer = network_.layers[last_];
    if (direct(layer)) return product(from, layer.in, layer.matrix, layer.out, out + at_ * layer.out);
    product(from, layer.in, layer.matrix, layer.out_padded, ends_.get());
    for (int i = 0; i < rows_; ++i)
      places_.each(at_ + i, [&](int64_t place, bool) {
        std::copy_n(ends_.get() + i * layer.out_padded, layer.out, out + place * layer.out);
      });
  }

  void write_first(Rows<T> from, T* dx) {
    const int width = network_.layers[0].in;
    const Rows<T> sums = down(0, from, to_value_);
    for (int i = 0; i < rows_; ++i)
      places_.each(at_ + i, [&](int64_t place, bool own) {
        if (own) std::copy_n(sums.at + i * sums.stride, width, dx + place * width);
        else std::fill_n(dx + place * width, width, T(0));
      });
  }

  // g in whole vectors, summed over a row's places
  Rows<T> cotangents(const T* g) const {
    const Layer<T>& layer = network_.layers[last_];
    if (direct(layer)) return {g + at_ * layer.out, layer.out};
    for (int i = 0; i < rows_; ++i)
      places_.each(at_ + i, [&](int64_t place, bool own) {
        T* const sum = ends_.get() + i * layer.out_padded;
        if (own) copy_rows(Rows<T>{g + place * layer.out, layer.out}, 1, layer.out, sum, layer.out_padded);
        else network_.kernels.add(g + place * layer.out, layer.out, sum);
      });
    return {ends_.get(), layer.out_padded};
  }

  // Whether rows of the result and of g are used where they stand.
  bool direct(const Layer<T>& last) const { return last.out == last.out_padded && !places_.repeat(); }

  const Network<T>& network_;
  const Places& places_;
  size_t last_;
  T* sums_;
  const T *x_ = nullptr, *d_ = nullptr;
  int64_t at_ = 0;
  int rows_ = 0;
  std::vector<Hidden> hidden_;
  Scratch<T> ends_, to_value_, to_tangent_, next_, own_x_, own_d_;
};

// body(tile, first row, rows) for all tiles; gradients by weights, where wanted, are added up thread by thread, then
// over the threads, always in the same order.
template <class T, class Body>
void each_tile(const Network<T>& network, const MlpOperands<T>& in, T* dw, const Threads& threads, const Body& body) {
  const Places places(in.rows, in.first);
  const int64_t rows = places.rows(), parts = std::clamp<int64_t>(rows / kRowsPerTask, 1, threads.count);
  const Scratch<T> sums(dw ? parts * network.sums : 0);
  threads.parallel(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      T* const own = dw ? sums.get() + part * network.sums : nullptr;
      if (dw) std::fill_n(own, network.sums, T(0));
      Tile<T> tile(network, places, own);
      const int64_t first = rows * part / parts, count = rows * (part + 1) / parts - first;
      const int64_t tiles = (count + kTile - 1) / kTile;
      for (int64_t k = 0; k < tiles; ++k) {
        const int64_t row = count * k / tiles;
        body(tile, first + row, int(count * (k + 1) / tiles - row));
      }
    }
  });
  if (!dw) return;
  for (const Layer<T>& layer : network.layers) {
    threads.parallel(layer.in, (1 << 15) / layer.out_padded + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int j = 0; j < layer.out; ++j) {
          const T* const term = sums.get() + layer.sums + i * layer.out_padded + j;
          T sum = *term;
          for (int64_t part = 1; part < parts; ++part) sum += term[part * network.sums];
          dw[i * layer.out + j] = sum;
        }
    });
    dw += int64_t(layer.in) * layer.out;
  }
}

}  // namespace

template <class T>
void mlp(const MlpProblem& problem, const MlpOperands<T>& in, T* out, const Threads& threads) {
  const Network<T> network(problem, in.w, false);
  each_tile<T>(network, in, nullptr, threads,
               [&](Tile<T>& tile, int64_t at, int rows) { tile.values(at, rows, in.x, out); });
}

template <class T>
void mlp_gradient(const MlpProblem& problem, const MlpOperands<T>& in, const T* g, const MlpGradients<T>& grad,
                  const Threads& threads) {
  const Network<T> network(problem, in.w, true);
  each_tile<T>(network, in, grad.w, threads,
               [&](Tile<T>& tile, int64_t at, int rows) { tile.gradient(at, rows, in.x, g, grad.x); });
}

template <class T>
void mlp_gradient_tangent(const MlpProblem& problem, const MlpOperands<T>& in, const T* g, const T* d,
                          const MlpGradients<T>& grad, T* to_g, const Threads& threads) {
  const Network<T> network(problem, in.w, true);
  each_tile<T>(network, in, grad.w, threads,
               [&](Tile<T>& tile, int64_t at, int rows) { tile.gradient_tangent(at, rows, in.x, g, d, grad.x, to_g); });
}

#define NF_INSTANTIATE(T)                                                                                          \
  template void mlp<T>(const MlpProblem&, const MlpOperands<T>&, T*, const Threads&);                              \
  template void mlp_gradient<T>(const MlpProblem&, const MlpOperands<T>&, const T*, const MlpGradients<T>&,        \
                                const Threads&);                                                                   \
  template void mlp_gradient_tangent<T>(const MlpProblem&, const MlpOperands<T>&, const T*, const T*,              \
                                        const MlpGradients<T>&, T*, const Threads&);
NF_INSTANTIATE(float)
NF_INSTANTIATE(double)

}  // namespace nf
