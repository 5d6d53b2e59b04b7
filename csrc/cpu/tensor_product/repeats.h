// The product with scalar attributes that repeat: a node's type embedding, of which there are as many as elements.
//
// Where y holds scalars only and few of its rows differ, the weights are contracted with each different row once,
//     W'[row][u, k] = Σ_v y[row][v] W[u, v, k],
// and the samples of a row become a group with weights of their own and one attribute, 1: mul2 times less work.
#pragma once

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cpu/scratch.h"
#include "cpu/tensor_product/kernels.h"
#include "cpu/tensor_product/product.h"
#include "cpu/tensor_product/tiles.h"

namespace nf {

// Samples with equal rows: group g is order[starts[g]] … order[starts[g + 1] − 1]; no order: as they come.
struct EqualRows {
  std::vector<int64_t> order, starts;
};

// Of samples whose groups are known: group[i] < groups.
inline EqualRows rows_by_group(const int64_t* group, int64_t count, int64_t groups) {
  EqualRows equal{std::vector<int64_t>(count), std::vector<int64_t>(groups + 1, 0)};
  for (int64_t i = 0; i < count; ++i) ++equal.starts[group[i] + 1];
  for (int64_t g = 0; g < groups; ++g) equal.starts[g + 1] += equal.starts[g];
  std::vector<int64_t> next = equal.starts;
  for (int64_t i = 0; i < count; ++i) equal.order[next[group[i]]++] = i;
  return equal;
}

// Nothing where more than `limit` rows differ.
template <class T>
std::optional<EqualRows> find_equal_rows(const T* rows, int64_t count, int64_t dim, int64_t limit) {
  std::unordered_map<std::string_view, int64_t> known;
  std::vector<int64_t> group(count);
  for (int64_t i = 0; i < count; ++i) {
    const std::string_view bytes(reinterpret_cast<const char*>(rows + i * dim), dim * sizeof(T));
    group[i] = known.emplace(bytes, int64_t(known.size())).first->second;
    if (int64_t(known.size()) > limit) return std::nullopt;
  }
  return rows_by_group(group.data(), count, int64_t(known.size()));
}

// Many samples a row, and no more weights than there were: only then the contraction pays.
inline int64_t worthwhile_rows(const ProductProblem& problem, int64_t batch) {
  if (!problem.has_scalar_attributes()) return 0;
  int64_t limit = batch / 4;
  for (const ProductPath& p : problem.paths) limit = std::min<int64_t>(limit, p.mul2);
  return limit;
}

template <class T>
class ContractedWeights {
 public:
  // rows [groups, dim_y]: what y is in each
  ContractedWeights(const ProductProblem& problem, int groups, const T* rows)
      : original_(problem), groups_(groups), rows_(groups * problem.dim_y),
        problem_{problem.paths, problem.dim_x, 1, 0, problem.dim_out} {
    std::copy_n(rows, groups * problem.dim_y, rows_.get());
    for (ProductPath& p : problem_.paths) {
      p.mul2 = 1;
      p.y = 0;
      p.w = problem_.dim_w;
      problem_.dim_w += p.weights();
    }
  }

  ContractedWeights(const ProductProblem& problem, const ProductOperands<T>& in, const EqualRows& rows)
      : ContractedWeights(problem, int(rows.starts.size()) - 1, one_of_each(problem, in, rows).get()) {}

  // What is left to do for the samples: paths with a single attribute, whose value is `attribute`.
  const ProductProblem& problem() const { return problem_; }
  static constexpr T attribute = 1;
  int groups() const { return groups_; }

  Scratch<T> contract(const T* w, const Threads& threads) const {
    Scratch<T> contracted(groups_ * problem_.dim_w);
    contract(w, contracted.get(), threads);
    return contracted;
  }

  // contracted [groups, problem().dim_w]
  void contract(const T* w, T* contracted, const Threads& threads) const {
    for_each_matrix(threads, [&](size_t path, int64_t u) {
      const ProductPath &from = original_.paths[path], &to = problem_.paths[path];
      product_kernels<T>().mix_rows({groups_, from.mul2, from.mul3, rows_.get() + from.y, original_.dim_y, 1,
                                     w + from.w + u * from.mul2 * from.mul3, from.mul3,
                                     contracted + to.w + u * to.mul3, problem_.dim_w, false});
    });
  }

  // dW[u, v, k] = Σ_rows y[row][v] dW'[row][u, k]
  void spread(const T* contracted, T* dw, const Threads& threads) const {
    for_each_matrix(threads, [&](size_t path, int64_t u) { spread(path, u, contracted, dw, false); });
  }

  // The same of one channel of x, or that added.
  void spread(size_t path, int64_t u, const T* contracted, T* dw, bool add) const {
    const ProductPath &to = original_.paths[path], &from = problem_.paths[path];
    product_kernels<T>().mix_rows({to.mul2, groups_, to.mul3, rows_.get() + to.y, 1, original_.dim_y,
                                   contracted + from.w + u * from.mul3, problem_.dim_w,
                                   dw + to.w + u * to.mul2 * to.mul3, to.mul3, add});
  }

  // dy[row][v] = Σ_{u, k} W[u, v, k] dW'[row][u, k]; threads take channels u, and their sums are added in order.
  void to_rows(const T* w, const T* contracted, T* dy, const Threads& threads) const {
    const ProductKernels<T>& kernels = product_kernels<T>();
    const int64_t rows = groups_ * original_.dim_y, size = rows * kernels.lanes;
    int64_t weights = 0;
    for (const ProductPath& p : original_.paths) weights += p.weights();
    const int64_t parts = std::clamp<int64_t>(weights / kWeightsPerTask, 1, threads.count);
    const Scratch<T> sums(parts * size);
    threads.parallel(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        T* const sum = sums.get() + part * size;
        std::fill_n(sum, size, T(0));
        for (size_t k = 0; k < problem_.paths.size(); ++k) {
          const ProductPath &p = original_.paths[k], &from = problem_.paths[k];
          for (int64_t u = p.mul1 * part / parts; u < p.mul1 * (part + 1) / parts; ++u)
            kernels.dot_rows({groups_, p.mul2, p.mul3, contracted + from.w + u * p.mul3, problem_.dim_w,
                              w + p.w + u * p.mul2 * p.mul3, p.mul3, sum + p.y * kernels.lanes,
                              original_.dim_y * kernels.lanes});
        }
      }
    });
    std::fill_n(dy, rows, T(0));
    for (int64_t part = 0; part < parts; ++part) kernels.sum_samples(sums.get() + part * size, rows, 1, dy);
  }

 private:
  static constexpr int64_t kWeightsPerTask = 1 << 16;

  static Scratch<T> one_of_each(const ProductProblem& problem, const ProductOperands<T>& in, const EqualRows& rows) {
    const int64_t groups = int64_t(rows.starts.size()) - 1, dim = problem.dim_y;
    Scratch<T> result(groups * dim);
    for (int64_t g = 0; g < groups; ++g)
      std::copy_n(in.y + (in.rows_y == 1 ? 0 : rows.order[rows.starts[g]]) * dim, dim, result.get() + g * dim);
    return result;
  }

  // body(number of the path, u) for the matrix [mul2, mul3] of each channel of x
  template <class Body>
  void for_each_matrix(const Threads& threads, const Body& body) const {
    for (size_t k = 0; k < problem_.paths.size(); ++k) {
      const ProductPath& p = original_.paths[k];
      threads.parallel(p.mul1, std::max<int64_t>(1, kWeightsPerTask / (int64_t(p.mul2) * p.mul3)),
                       [&](int64_t begin, int64_t end) {
                         for (int64_t u = begin; u < end; ++u) body(k, u);
                       });
    }
  }

  const ProductProblem& original_;
  int groups_;
  Scratch<T> rows_;  // the different rows of y
  ProductProblem problem_;
};

}  // namespace nf
