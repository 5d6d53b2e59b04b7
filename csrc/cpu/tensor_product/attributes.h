// Gradients of the product with scalar attributes y and shared weights, where the attributes or what they are contracted
// with differ from sample to sample: the second derivatives with type embeddings, and the gradient of the embeddings.
//
// For one channel u of x, with W = w[u] the matrix [v, k] of a path and g, x those of its degree (components m),
//     to_x[m] = Σ_k (Σ_v y[v] W[v, k]) g[k, m],    to_y[v] = Σ_k W[v, k] P[k],    to_w[v, k] = Σ_samples y[v] P[k],
//     P[k] = Σ_m x[m] g[k, m],
// so that each takes one matrix product for all m together. For scalars, H[v] = Σ_k W[v, k] g[k] serves both of
// to_x = Σ_v y[v] H[v] and to_y[v] = x H[v]. The threads share the channels u out: each weight is read and each of
// to_w written once a call, by one thread, while it is in a near cache for all samples.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/padded.h"
#include "cpu/scratch.h"
#include "cpu/tensor_product/kernels.h"
#include "cpu/tensor_product/product.h"

namespace nf {

template <class T>
class AttributeGradients {
 public:
  // g [batch, dim_out]: the cotangents of all that follows
  AttributeGradients(const ProductProblem& problem, int64_t batch, const T* g, const Threads& threads)
      : problem_(problem), kernels_(product_kernels<T>()), lanes_(kernels_.lanes), vectors_(vectors_for(batch, lanes_)),
        width_(int64_t(vectors_) * lanes_), tiles_((batch + width_ - 1) / width_), batch_(batch), threads_(threads),
        g_(columns(g, problem.dim_out)) {}

  // to_x [batch, dim_x] = ∂F(·, y, w)/∂x and to_y [batch, dim_y] = ∂F(x, ·, w)/∂y; null: not wanted.
  void rows(const T* w, const T* x, const T* y, T* to_x, T* to_y) const {
    const Columns x_columns = to_y ? columns(x, problem_.dim_x) : Columns(0),
                  y_columns = to_x ? columns(y, problem_.dim_y) : Columns(0);
    const auto shares = share_out([&](const ProductPath& p) {
      return p.l1 == 0 ? matrix_cost(p) + (bool(to_x) + bool(to_y)) * kPass * p.mul2
                       : (bool(to_x) + bool(to_y)) * (matrix_cost(p) + kPass * p.mul3 * p.n1());
    });
    std::vector<Columns> x_sums, y_sums;
    for (size_t part = 0; part < shares.size(); ++part) {
      x_sums.emplace_back(to_x ? size(problem_.dim_x) : 0);
      y_sums.emplace_back(to_y ? size(problem_.dim_y) : 0);
    }
    each_share(shares, [&](const Share& share, int64_t part) {
      if (to_x) std::fill_n(x_sums[part].get(), size(problem_.dim_x), T(0));
      if (to_y) std::fill_n(y_sums[part].get(), size(problem_.dim_y), T(0));
      const Scratch<T> room(largest([&](const ProductPath& p) { return std::max(p.mul2, p.mul3) * width_; }));
      each_run(share, [&](const ProductPath& p, int64_t begin, int64_t end) {
        const int64_t matrix = int64_t(p.mul2) * p.mul3;
        const T* const next = w + p.w + end * matrix;  // as a rule the weights of the next run
        const int64_t ahead = matrix * kRun / (tiles_ * (end - begin)) + 1;
        for (int64_t tile = 0, step = 0; tile < tiles_; ++tile) {
          const auto at = [&](const Columns& c, int64_t dim, int64_t column) {
            return c.get() + (tile * dim + column) * width_;
          };
          for (int64_t u = begin; u < end; ++u, ++step) {
            prefetch(next + step * ahead, ahead);
            const Channel c{p, w + p.w + u * matrix, at(g_, problem_.dim_out, p.out),
                            to_y ? at(x_columns, problem_.dim_x, p.x + u * p.n1()) : nullptr,
                            to_x ? at(y_columns, problem_.dim_y, p.y) : nullptr,
                            to_x ? at(x_sums[part], problem_.dim_x, p.x + u * p.n1()) : nullptr,
                            to_y ? at(y_sums[part], problem_.dim_y, p.y) : nullptr};
            p.l1 == 0 ? scalars(c, room.get()) : irreps(c, room.get());
          }
        }
      });
    });
    if (to_x) write(x_sums, problem_.dim_x, to_x);
    if (to_y) write(y_sums, problem_.dim_y, to_y);
  }

  // dw [dim_w] = ∂F(x, y, ·)/∂w where a path has weights. `more(number of the path, u)` is called when the weights of a channel are
  // done and may add to them while they are in a near cache.
  template <class More>
  void weights(const T* x, const T* y, T* dw, const More& more) const {
    const Columns x_columns = columns(x, problem_.dim_x), y_columns = columns(y, problem_.dim_y);
    const int64_t samples = tiles_ * width_, block = std::min(samples, std::max<int64_t>(1, kDepth / width_) * width_);
    const Scratch<T> y_rows = by_component(y_columns, problem_.dim_y);
    const auto shares = share_out([&](const ProductPath& p) {
      return matrix_cost(p) + kPass * (p.l1 == 0 ? p.mul2 + p.mul3 / kRun : p.mul3 * (p.n1() + 1));
    });
    each_share(shares, [&](const Share& share, int64_t) {
      const auto matrix_row = [&](const ProductPath& p) { return padded(p.mul3, lanes_); };
      const Scratch<T> room(largest([&](const ProductPath& p) { return p.mul3 * width_; })),
          pairs(largest([&](const ProductPath& p) { return p.l1 == 0 ? p.mul2 * block : 0; })),
          products(largest([&](const ProductPath& p) { return matrix_row(p) * (p.l1 == 0 ? samples : block); })),
          sums(kRun * largest([&](const ProductPath& p) { return p.mul2 * matrix_row(p); }));
      each_run(share, [&](const ProductPath& p, int64_t begin, int64_t end) {
        const int64_t row = matrix_row(p), size = p.mul2 * row;
        const bool direct = row == p.mul3;
        if (p.l1 == 0) to_rows(p, nullptr, 0, samples, room.get(), products.get());
        for (int64_t first = 0; first < samples; first += block) {
          const int64_t count = std::min(block, samples - first);
          for (int64_t u = begin; u < end; ++u) {
            T* const to = direct ? dw + p.w + u * size : sums.get() + (u - begin) * size;
            const T* const x_of_channel = x_columns.get() + (p.x + u * p.n1()) * width_;
            MatrixProduct<T> product{p.mul2, int(count), int(row / lanes_), y_rows.get() + p.y * samples + first, samples, 1,
                                     false, products.get(), row, to, row, first > 0};
            if (p.l1 == 0) {
              multiply_pairs(p, x_of_channel, y_columns, first, count, pairs.get(), block);
              product.a = pairs.get();
              product.a_row = block;
              product.b += first * row;
            } else {
              to_rows(p, x_of_channel, first, count, room.get(), products.get());
            }
            kernels_.multiply(product);
          }
        }
        for (int64_t u = begin; u < end; ++u) {
          T* const to = dw + p.w + u * p.mul2 * p.mul3;
          for (int v = 0; !direct && v < p.mul2; ++v)
            std::copy_n(sums.get() + (u - begin) * size + v * row, p.mul3, to + v * p.mul3);
          more(size_t(&p - problem_.paths.data()), u);
        }
      });
    });
  }

 private:
  static constexpr int kMaxVectors = 4;
  static constexpr int64_t kRun = 8;  // channels
  static constexpr int64_t kCacheLine = 64;
  static constexpr int64_t kDepth = 128;             // samples of a matrix product that sums over them
  static constexpr int64_t kWorkPerThread = 1 << 17;  // multiplications that are worth waking a thread for
  static constexpr int64_t kPass = 6;  // what one outside of a matrix product costs, measured in those within

  using Columns = Scratch<T>;  // [tile][column][width]

  // Channels u of the paths, counted through.
  struct Share {
    int64_t begin, end;
  };

  // One channel of x with a tile of samples: where its operands begin.
  struct Channel {
    const ProductPath& path;
    const T *w, *g, *x, *y;
    T *to_x, *to_y;
  };

  static void prefetch(const T* p, int64_t count) {
    for (int64_t i = 0; i < count; i += kCacheLine / int64_t(sizeof(T))) __builtin_prefetch(p + i, 0, 2);
  }

  void scalars(const Channel& c, T* h) const {
    const ProductPath& p = c.path;
    kernels_.multiply({p.mul2, p.mul3, vectors_, c.w, p.mul3, 1, false, c.g, width_, h, width_, false});
    kernels_.scalar_channel({p.mul2, vectors_, h, c.x, c.y, c.to_x, c.to_y, T(p.coefficient)});
  }

  void irreps(const Channel& c, T* columns) const {
    const ProductPath& p = c.path;
    if (c.to_x) {
      kernels_.multiply({p.mul3, p.mul2, vectors_, c.w, 1, p.mul3, false, c.y, width_, columns, width_, false});
      kernels_.sum_channels({p.mul3, p.n1(), vectors_, columns, c.g, c.to_x, width_, coefficient(p)});
    }
    if (c.to_y) {
      kernels_.sum_components({p.mul3, p.n1(), vectors_, c.x, c.g, columns, width_, coefficient(p)});
      kernels_.multiply({p.mul2, p.mul3, vectors_, c.w, p.mul3, 1, false, columns, width_, c.to_y, width_, true});
    }
  }

  // P of the samples from `first` on, rows [sample][padded mul3]; without x, of scalars, g alone.
  void to_rows(const ProductPath& p, const T* x, int64_t first, int64_t count, T* columns, T* rows) const {
    for (int64_t tile = first / width_; tile * width_ < first + count; ++tile, rows += width_ * padded(p.mul3, lanes_)) {
      const T* const g = g_.get() + (tile * problem_.dim_out + p.out) * width_;
      if (x)
        kernels_.sum_components({p.mul3, p.n1(), vectors_, x + tile * problem_.dim_x * width_, g, columns, width_,
                                  coefficient(p)});
      kernels_.to_rows(x ? columns : g, width_, p.mul3, vectors_, rows);
    }
  }

  // pairs [v][sample] = y[v] x of the samples from `first` on, rows `row` elements apart
  void multiply_pairs(const ProductPath& p, const T* x, const Columns& y, int64_t first, int64_t count, T* pairs,
                      int64_t row) const {
    for (int64_t s = 0; s < count; s += width_) {
      const int64_t tile = (first + s) / width_;
      kernels_.sum_components({p.mul2, 1, vectors_, x + tile * problem_.dim_x * width_,
                                y.get() + (tile * problem_.dim_y + p.y) * width_, pairs + s, row, coefficient(p)});
    }
  }

  // With the Clebsch-Gordan coefficient, which is the same for all components: that of a scalar.
  static T coefficient(const ProductPath& p) { return T(p.coefficient / std::sqrt(p.n1())); }

  // --- rows and columns ---

  int64_t size(int64_t dim) const { return tiles_ * dim * width_; }

  Columns columns(const T* rows, int64_t dim) const {
    Columns result(size(dim));
    const Scratch<T> zeros(dim);
    std::fill_n(zeros.get(), dim, T(0));
    threads_.parallel(tiles_, tiles_a_task(dim), [&](int64_t begin, int64_t end) {
      std::vector<const T*> from(width_);
      for (int64_t tile = begin; tile < end; ++tile) {
        for (int64_t s = 0; s < width_; ++s)
          from[s] = tile * width_ + s < batch_ ? rows + (tile * width_ + s) * dim : zeros.get();
        kernels_.read(from.data(), 0, int(dim), vectors_, result.get() + tile * dim * width_);
      }
    });
    return result;
  }

  // [component][sample]
  Scratch<T> by_component(const Columns& columns, int64_t dim) const {
    Scratch<T> result(size(dim));
    for (int64_t tile = 0; tile < tiles_; ++tile)
      for (int64_t c = 0; c < dim; ++c)
        std::copy_n(columns.get() + (tile * dim + c) * width_, width_, result.get() + (c * tiles_ + tile) * width_);
    return result;
  }

  // The sum of what the threads found, in their order.
  void write(const std::vector<Columns>& sums, int64_t dim, T* rows) const {
    threads_.parallel(tiles_, tiles_a_task(dim), [&](int64_t begin, int64_t end) {
      std::vector<T*> to(width_);
      for (int64_t tile = begin; tile < end; ++tile) {
        T* const total = sums[0].get() + tile * dim * width_;
        for (size_t part = 1; part < sums.size(); ++part)
          for (int64_t i = 0; i < dim * width_; ++i) total[i] += sums[part].get()[tile * dim * width_ + i];
        const int64_t count = std::min(width_, batch_ - tile * width_);
        for (int64_t s = 0; s < count; ++s) to[s] = rows + (tile * width_ + s) * dim;
        kernels_.write(total, 0, int(dim), vectors_, to.data(), int(count));
      }
    });
  }

  int64_t tiles_a_task(int64_t dim) const { return std::max<int64_t>(1, 16384 / std::max<int64_t>(dim * width_, 1)); }

  // --- who does what ---

  // As wide as there are samples for: a weight is read once for all of a tile.
  static int vectors_for(int64_t batch, int lanes) {
    int vectors = 1;
    while (vectors < kMaxVectors && batch > int64_t(vectors) * lanes) vectors *= 2;
    return vectors;
  }

  static int64_t matrix_cost(const ProductPath& p) { return int64_t(p.mul2) * p.mul3; }

  // Parts of about the same cost, given that of a sample and channel by path.
  template <class Cost>
  std::vector<Share> share_out(const Cost& cost) const {
    int64_t total = 0, channels = 0;
    for (const ProductPath& p : problem_.paths) total += p.mul1 * cost(p), channels += p.mul1;
    const int64_t parts = std::min<int64_t>({threads_.count, 1 + total * batch_ / kWorkPerThread, std::max<int64_t>(channels, 1)});
    std::vector<Share> shares;
    int64_t seen = 0, channel = 0, begin = 0;
    for (const ProductPath& p : problem_.paths)
      for (int u = 0; u < p.mul1; ++u, ++channel) {
        seen += cost(p);
        if (seen * parts >= total * int64_t(shares.size() + 1)) {
          shares.push_back({begin, channel + 1});
          begin = channel + 1;
        }
      }
    if (shares.empty()) shares.push_back({0, 0});
    return shares;
  }

  template <class Body>
  void each_share(const std::vector<Share>& shares, const Body& body) const {
    threads_.parallel(int64_t(shares.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) body(shares[part], part);
    });
  }

  // body(path, begin, end) for channels of a path whose operands and weights stay in the second-level cache.
  template <class Body>
  void each_run(const Share& share, const Body& body) const {
    int64_t first = 0;
    for (const ProductPath& p : problem_.paths) {
      const int64_t begin = std::max(share.begin - first, int64_t(0)), end = std::min(share.end - first, int64_t(p.mul1));
      for (int64_t u = begin; u < end; u += kRun) body(p, u, std::min(u + kRun, end));
      first += p.mul1;
    }
  }

  template <class Size>
  int64_t largest(const Size& size) const {
    int64_t most = 0;
    for (const ProductPath& p : problem_.paths) most = std::max<int64_t>(most, size(p));
    return most;
  }

  const ProductProblem& problem_;
  const ProductKernels<T>& kernels_;
  int lanes_, vectors_;
  int64_t width_, tiles_, batch_;
  const Threads& threads_;
  Columns g_;
};

}  // namespace nf
