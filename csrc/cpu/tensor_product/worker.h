// What one thread does: the product or its gradient, tile by tile, with working memory of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/padded.h"
#include "cpu/scratch.h"
#include "cpu/tensor_product/kernels.h"
#include "cpu/tensor_product/product.h"
#include "cpu/tensor_product/tiles.h"

namespace nf {

// All that the workers of one call share. `w` holds one block of weights a group, unless each sample has a row.
template <class T>
struct Call {
  const ProductProblem& problem;
  ProductOperands<T> in;
  const T* g;                // of the gradient, else null
  T* out;                    // of the product, else null
  ProductGradients<T> grad;  // rows of an operand that the samples share are not written by the workers
  Tiling tiling;
  int vectors;

  bool w_per_sample() const { return in.rows_w == in.batch && in.batch > 1; }
  bool x_shared() const { return in.rows_x == 1; }
  bool y_shared() const { return in.rows_y == 1; }
};

// Where the gradient of each path's shared weights is summed. A path that mixes: rows of mul3 padded to full vectors,
// else a vector of partial sums a weight.
struct WeightSums {
  std::vector<int64_t> at;
  int64_t size = 0;

  WeightSums(const ProductProblem& problem, int lanes) {
    for (const ProductPath& p : problem.paths) {
      at.push_back(size);
      if (p.w >= 0) size += p.pairs() * (p.mixes() ? padded(p.mul3, lanes) : lanes);
    }
  }
};

template <class T>
class Worker {
 public:
  explicit Worker(const Call<T>& call)
      : call_(call), kernels_(product_kernels<T>()), lanes_(kernels_.lanes), width_(int64_t(call.vectors) * lanes_),
        sums_(call.problem, lanes_), x_(call.problem.dim_x * width_), y_(call.problem.dim_y * width_),
        out_(call.problem.dim_out * width_), dx_(call.grad.x ? call.problem.dim_x * width_ : 0),
        dy_(call.grad.y ? call.problem.dim_y * width_ : 0), weights_(call.w_per_sample() ? block_of_weights() : 0),
        dw_(!call.grad.w ? 0 : call.w_per_sample() ? block_of_weights() : sums_.size * call.tiling.groups),
        z_(chunk_of_pairs()), h_(call.g ? chunk_of_pairs() : 0), g_rows_(call.g ? rows_of_cotangents() : 0),
        matrix_(largest_coupling() * lanes_), zeros_(longest_row()), from_(width_), to_(width_) {
    std::fill_n(zeros_.get(), longest_row(), T(0));
    if (call.grad.w && !call.w_per_sample()) std::fill_n(dw_.get(), sums_.size * call.tiling.groups, T(0));
    const Tile all{0, int(width_), 0};
    if (call.x_shared()) read(call.in.x, 1, call.problem.dim_x, all, x_);
    if (call.y_shared()) read(call.in.y, 1, call.problem.dim_y, all, y_);
    if (call.grad.x) std::fill_n(dx_.get(), call.problem.dim_x * width_, T(0));
    if (call.grad.y) std::fill_n(dy_.get(), call.problem.dim_y * width_, T(0));
  }

  void product(const Tile& tile) {
    read_operands(tile);
    std::fill_n(out_.get(), call_.problem.dim_out * width_, T(0));
    for (const ProductPath& p : call_.problem.paths) p.mixes() ? mix(p, tile) : pair(p, tile);
    write(out_, call_.problem.dim_out, tile, call_.out);
  }

  void gradient(const Tile& tile) {
    read_operands(tile);
    read(call_.g, call_.in.batch, call_.problem.dim_out, tile, out_);
    if (call_.grad.x && !call_.x_shared()) std::fill_n(dx_.get(), call_.problem.dim_x * width_, T(0));
    if (call_.grad.y && !call_.y_shared()) std::fill_n(dy_.get(), call_.problem.dim_y * width_, T(0));
    for (size_t k = 0; k < call_.problem.paths.size(); ++k) {
      const ProductPath& p = call_.problem.paths[k];
      T* sums = call_.w_per_sample() ? dw_.get() : dw_.get() + tile.group * sums_.size + sums_.at[k];
      p.mixes() ? mix_gradient(p, tile, sums) : pair_gradient(p, tile, sums);
    }
    if (call_.grad.x && !call_.x_shared()) write(dx_, call_.problem.dim_x, tile, call_.grad.x);
    if (call_.grad.y && !call_.y_shared()) write(dy_, call_.problem.dim_y, tile, call_.grad.y);
  }

  // After the last tile: add what was summed over the samples to rows that they share.
  void add_sums(const ProductGradients<T>& to) const {
    if (call_.grad.x && call_.x_shared()) kernels_.sum_samples(dx_.get(), call_.problem.dim_x, call_.vectors, to.x);
    if (call_.grad.y && call_.y_shared()) kernels_.sum_samples(dy_.get(), call_.problem.dim_y, call_.vectors, to.y);
    if (!call_.grad.w || call_.w_per_sample()) return;
    for (int group = 0; group < call_.tiling.groups; ++group)
      for (size_t k = 0; k < call_.problem.paths.size(); ++k)
        add_weight_sums(call_.problem.paths[k], dw_.get() + group * sums_.size + sums_.at[k],
                        to.w + group * call_.problem.dim_w);
  }

 private:
  static constexpr int kChunkBytes = 16384;  // of coupled pairs, which the matrix products read from the first-level cache
  enum Role { kX, kY, kOut };

  // One operand of a sweep: columns of the first pair, and the step to the next pair's.
  struct Side {
    Role role;
    int l;
    T* at;
    int64_t step;
  };

  // --- rows and columns ---

  void read(const T* rows, int64_t count, int64_t dim, const Tile& tile, const Scratch<T>& columns) {
    read_some(rows, count, dim, tile, 0, dim, columns.get());
  }

  // `size` elements from `column` on of the tile's rows, zeros for the samples that a short tile lacks.
  void read_some(const T* rows, int64_t count, int64_t dim, const Tile& tile, int64_t column, int64_t size, T* columns) {
    for (int s = 0; s < width_; ++s)
      from_[s] = s < tile.count ? rows + (count == 1 ? 0 : call_.tiling.sample(tile.first + s)) * dim : zeros_.get();
    kernels_.read(from_.data(), column, int(size), call_.vectors, columns);
  }

  void read_operands(const Tile& tile) {
    if (!call_.x_shared()) read(call_.in.x, call_.in.rows_x, call_.problem.dim_x, tile, x_);
    if (!call_.y_shared()) read(call_.in.y, call_.in.rows_y, call_.problem.dim_y, tile, y_);
  }

  void write(const Scratch<T>& columns, int64_t dim, const Tile& tile, T* rows) {
    write_some(columns.get(), dim, tile, 0, dim, rows);
  }

  void write_some(const T* columns, int64_t dim, const Tile& tile, int64_t column, int64_t size, T* rows) {
    for (int s = 0; s < tile.count; ++s) to_[s] = rows + call_.tiling.sample(tile.first + s) * dim;
    kernels_.write(columns, column, int(size), call_.vectors, to_.data(), tile.count);
  }

  // --- sweeps ---

  Side x_side(const ProductPath& p, const Sweep& s, const Scratch<T>& columns) const {
    return {kX, p.l1, columns.get() + (p.x + s.u * p.n1()) * width_, s.du * p.n1() * width_};
  }
  Side y_side(const ProductPath& p, const Sweep& s, const Scratch<T>& columns) const {
    return {kY, p.l2, columns.get() + (p.y + s.v * p.n2()) * width_, s.dv * p.n2() * width_};
  }
  Side out_side(const ProductPath& p, const Sweep& s) const {
    return {kOut, p.l3, out_.get() + (p.out + s.k * p.n3()) * width_, s.dk * p.n3() * width_};
  }
  // The coupled pairs of a sweep one after the other.
  Side chunk_side(const ProductPath& p, const Scratch<T>& chunk) const {
    return {kOut, p.l3, chunk.get(), p.n3() * width_};
  }

  // The weights of a sweep's pairs: numbers, columns, or none.
  struct PairWeights {
    const T* at;
    int64_t step;
    bool per_sample;
  };

  // target (+)= coefficient · w · (one ⊗ other)
  void couple(const ProductPath& p, int count, Side one, Side other, const Side& target, const PairWeights& w, bool add) {
    if (one.step == 0) std::swap(one, other);  // the operand at rest is contracted with the coefficients once
    // C keeps its value when the three degrees change places in a circle, else it gains the sign (−1)^(l1 + l2 + l3)
    const bool odd = (other.role + 3 - one.role) % 3 == 2 && (p.l1 + p.l2 + p.l3) % 2;
    const bool compiled = std::max({one.l, other.l, target.l}) <= kMaxL;
    const Run<T> run{count,
                     call_.vectors,
                     one.at,
                     other.at,
                     target.at,
                     one.step,
                     other.step,
                     target.step,
                     w.at,
                     w.step,
                     w.per_sample,
                     add,
                     T(odd ? -p.coefficient : p.coefficient),
                     compiled ? nullptr : &coupling(one.l, other.l, target.l),
                     matrix_.get()};
    compiled ? kernels_.couple[one.l][other.l][target.l](run) : kernels_.couple_any(run);
  }

  static constexpr PairWeights kNoWeights{nullptr, 0, false};

  template <class Body>
  void for_each_chunk(const ProductPath& p, const Body& body) const {
    const int size = pairs_in_chunk(p);
    for_each_sweep(p, [&](const Sweep& sweep) {
      for (int first = 0; first < sweep.count; first += size)
        body(sweep.part(first, std::min(size, sweep.count - first)));
    });
  }

  // --- a path with one weight a pair, or none ---

  PairWeights read_pair_weights(const ProductPath& p, const Tile& tile) {
    if (p.w < 0) return kNoWeights;
    if (!call_.w_per_sample()) return {call_.in.w + tile.group * call_.problem.dim_w + p.w, 1, false};
    read_some(call_.in.w, call_.in.rows_w, call_.problem.dim_w, tile, p.w, p.weights(), weights_.get());
    return {weights_.get(), width_, true};
  }

  static PairWeights of_sweep(const PairWeights& w, const Sweep& s) {
    return w.at ? PairWeights{w.at + s.w * w.step, s.dw * w.step, w.per_sample} : w;
  }

  void pair(const ProductPath& p, const Tile& tile) {
    const PairWeights w = read_pair_weights(p, tile);
    for_each_sweep(p, [&](const Sweep& s) {
      couple(p, s.count, x_side(p, s, x_), y_side(p, s, y_), out_side(p, s), of_sweep(w, s), true);
    });
  }

  void pair_gradient(const ProductPath& p, const Tile& tile, T* dw) {
    const PairWeights w = read_pair_weights(p, tile);
    for_each_sweep(p, [&](const Sweep& s) {
      const PairWeights ws = of_sweep(w, s);
      if (call_.grad.x) couple(p, s.count, out_side(p, s), y_side(p, s, y_), x_side(p, s, dx_), ws, true);
      if (call_.grad.y) couple(p, s.count, out_side(p, s), x_side(p, s, x_), y_side(p, s, dy_), ws, true);
    });
    if (!call_.grad.w || p.w < 0) return;
    for_each_chunk(p, [&](const Sweep& s) {
      couple(p, s.count, x_side(p, s, x_), y_side(p, s, y_), chunk_side(p, z_), kNoWeights, false);
      const Side g = out_side(p, s);
      kernels_.dots({s.count, 1, p.n3() * call_.vectors, z_.get(), p.n3() * width_, g.at, g.step, 0, dw + s.w * lanes_,
                     s.dw * lanes_, 0, !call_.w_per_sample()});
    });
    if (call_.w_per_sample()) write_some(dw, call_.problem.dim_w, tile, p.w, p.weights(), call_.grad.w);
  }

  // --- a path that mixes: coupled pairs z times a matrix of weights ---

  // The rows of weights of a sweep's pairs, with the steps between rows and between the weights of a row.
  struct WeightMatrix {
    const T* at;
    int64_t row, column;
    bool per_sample;
  };

  WeightMatrix read_weight_matrix(const ProductPath& p, const Sweep& s, const Tile& tile) {
    if (!call_.w_per_sample())
      return {call_.in.w + tile.group * call_.problem.dim_w + p.w + s.w * p.mul3, s.dw * p.mul3, 1, false};
    for_each_block(p, s, [&](int64_t column, int64_t size, int64_t at) {
      read_some(call_.in.w, call_.in.rows_w, call_.problem.dim_w, tile, column, size, weights_.get() + at);
    });
    return {weights_.get(), p.mul3 * width_, width_, true};
  }

  // body(column, size, at): runs of adjacent columns of w that hold the sweep's rows, `at` their place among the columns
  template <class Body>
  void for_each_block(const ProductPath& p, const Sweep& s, const Body& body) const {
    const int adjacent = s.dw == 1 ? s.count : 1;
    for (int i = 0; i < s.count; i += adjacent)
      body(p.w + (s.w + i * s.dw) * p.mul3, int64_t(adjacent) * p.mul3, i * p.mul3 * width_);
  }

  void mix(const ProductPath& p, const Tile& tile) {
    const int64_t step = p.n3() * width_;
    for_each_chunk(p, [&](const Sweep& s) {
      couple(p, s.count, x_side(p, s, x_), y_side(p, s, y_), chunk_side(p, z_), kNoWeights, false);
      const WeightMatrix w = read_weight_matrix(p, s, tile);
      kernels_.multiply({p.mul3, s.count, p.n3() * call_.vectors, w.at, w.column, w.row, w.per_sample, z_.get(), step,
                         out_.get() + p.out * width_, step, true});
    });
  }

  void mix_gradient(const ProductPath& p, const Tile& tile, T* dw) {
    const int64_t step = p.n3() * width_, row = padded(p.mul3, lanes_);
    const T* g = out_.get() + p.out * width_;
    if (call_.grad.w && !call_.w_per_sample())
      for (int m = 0; m < p.n3(); ++m)
        kernels_.to_rows(g + m * width_, step, p.mul3, call_.vectors, g_rows_.get() + m * width_ * row);
    for_each_chunk(p, [&](const Sweep& s) {
      if (call_.grad.x || call_.grad.y) {
        const WeightMatrix w = read_weight_matrix(p, s, tile);
        kernels_.multiply({s.count, p.mul3, p.n3() * call_.vectors, w.at, w.row, w.column, w.per_sample, g, step,
                           h_.get(), step, false});
        const Side h = chunk_side(p, h_);
        if (call_.grad.x) couple(p, s.count, h, y_side(p, s, y_), x_side(p, s, dx_), kNoWeights, true);
        if (call_.grad.y) couple(p, s.count, h, x_side(p, s, x_), y_side(p, s, dy_), kNoWeights, true);
      }
      if (!call_.grad.w) return;
      couple(p, s.count, x_side(p, s, x_), y_side(p, s, y_), chunk_side(p, z_), kNoWeights, false);
      if (call_.w_per_sample()) {
        kernels_.dots({s.count, p.mul3, p.n3(), z_.get(), step, g, 0, step, dw, p.mul3 * width_, width_, false});
        for_each_block(p, s, [&](int64_t column, int64_t size, int64_t at) {
          write_some(dw + at, call_.problem.dim_w, tile, column, size, call_.grad.w);
        });
      } else {
        kernels_.multiply({s.count, int(step), int(row / lanes_), z_.get(), step, 1, false, g_rows_.get(), row,
                           dw + s.w * row, s.dw * row, true});
      }
    });
  }

  void add_weight_sums(const ProductPath& p, const T* sums, T* dw) const {
    if (p.w < 0) return;
    if (!p.mixes()) return kernels_.sum_samples(sums, p.weights(), 1, dw + p.w);
    const int64_t stride = padded(p.mul3, lanes_);
    for (int64_t row = 0; row < p.pairs(); ++row)
      for (int k = 0; k < p.mul3; ++k) dw[p.w + row * p.mul3 + k] += sums[row * stride + k];
  }

  // --- sizes ---

  int pairs_in_chunk(const ProductPath& p) const {
    return int(std::clamp<int64_t>(kChunkBytes / (p.n3() * width_ * int64_t(sizeof(T))), 8, 256));
  }

  template <class Size>
  int64_t largest(const Size& size) const {
    int64_t most = 0;
    for (const ProductPath& p : call_.problem.paths) most = std::max<int64_t>(most, size(p));
    return most;
  }
  int64_t chunk_of_pairs() const {
    return largest([&](const ProductPath& p) { return pairs_in_chunk(p) * p.n3() * width_; });
  }
  int64_t rows_of_cotangents() const {
    return largest([&](const ProductPath& p) { return p.n3() * width_ * padded(p.mul3, lanes_); });
  }
  int64_t block_of_weights() const {
    return width_ * largest([&](const ProductPath& p) { return p.mixes() ? pairs_in_chunk(p) * p.mul3 : p.weights(); });
  }
  int64_t largest_coupling() const {
    return largest([](const ProductPath& p) { return p.n1() * p.n2() + p.n1() * p.n3() + p.n2() * p.n3(); });
  }
  int64_t longest_row() const {
    const ProductProblem& p = call_.problem;
    return std::max({p.dim_x, p.dim_y, p.dim_out, call_.w_per_sample() ? p.dim_w : 0});
  }

  const Call<T>& call_;
  const ProductKernels<T>& kernels_;
  int lanes_;
  int64_t width_;  // samples in a tile
  WeightSums sums_;
  Scratch<T> x_, y_, out_, dx_, dy_;  // columns; `out` holds the cotangents of the gradient
  Scratch<T> weights_, dw_, z_, h_, g_rows_, matrix_, zeros_;
  std::vector<const T*> from_;
  std::vector<T*> to_;
};

}  // namespace nf
