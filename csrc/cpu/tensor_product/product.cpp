#include "cpu/tensor_product/product.h"

#include <memory>

#include "cpu/tensor_product/attributes.h"
#include "cpu/tensor_product/repeats.h"
#include "cpu/tensor_product/worker.h"

namespace nf {
namespace {

constexpr int64_t kWorkPerThread = 1 << 17;   // multiplications that are worth waking a thread for
constexpr int64_t kTileBytes = 256 * 1024;  // of a tile's columns
constexpr int kMaxVectors = 4;

int64_t work(const ProductProblem& problem, int64_t batch) {
  int64_t total = problem.dim_x + problem.dim_y + problem.dim_out;
  for (const ProductPath& p : problem.paths) total += p.pairs() * p.n3() * (p.mixes() ? p.mul3 + 2 : p.n1());
  return total * batch;
}

// Wide tiles serve shared matrices of weights, which are read once a tile; but every thread must have tiles.
template <class T>
int choose_vectors(const ProductProblem& problem, const ProductOperands<T>& in, bool w_per_sample, int64_t group_size,
                   int threads) {
  bool mixes = false;
  for (const ProductPath& p : problem.paths) mixes |= p.mixes();
  if (!mixes || w_per_sample) return 1;
  const int lanes = product_kernels<T>().lanes;
  const int64_t columns = (problem.dim_x + problem.dim_y + problem.dim_out) * lanes * int64_t(sizeof(T));
  int vectors = kMaxVectors;
  while (vectors > 1 && (columns * vectors > kTileBytes || group_size < int64_t(vectors) * lanes ||
                         in.batch < int64_t(vectors) * lanes * 4 * threads))
    vectors /= 2;
  return vectors;
}

// Each of `parts` workers takes its share of the tiles, in order, so that sums do not depend on who is faster.
template <class T, class Body>
std::vector<std::unique_ptr<Worker<T>>> run(const Call<T>& call, const Threads& threads, const Body& body) {
  const int64_t tiles = int64_t(call.tiling.tiles.size());
  const int64_t worth = 1 + work(call.problem, call.in.batch) / kWorkPerThread;
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>({threads.count, tiles, worth}));
  std::vector<std::unique_ptr<Worker<T>>> workers(parts);
  threads.parallel(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      workers[part] = std::make_unique<Worker<T>>(call);
      for (int64_t k = tiles * part / parts; k < tiles * (part + 1) / parts; ++k)
        body(*workers[part], call.tiling.tiles[k]);
    }
  });
  return workers;
}

template <class T>
Call<T> plan(const ProductProblem& problem, const ProductOperands<T>& in, const Threads& threads,
             const EqualRows* rows = nullptr) {
  Call<T> call{problem, in, nullptr, nullptr, {}, {}, 1};
  const std::vector<int64_t> starts = rows ? rows->starts : std::vector<int64_t>{0, in.batch};
  if (rows) call.tiling.order = rows->order;
  const int64_t group_size = in.batch / std::max<int64_t>(1, int64_t(starts.size()) - 1);
  call.vectors = choose_vectors<T>(problem, in, call.w_per_sample(), group_size, threads.count);
  call.tiling.cut(starts, call.vectors * product_kernels<T>().lanes);
  return call;
}

template <class T>
void run_product(Call<T> call, T* out, const Threads& threads) {
  call.out = out;
  run(call, threads, [](Worker<T>& worker, const Tile& tile) { worker.product(tile); });
}

// Sums over samples are added to what their rows hold.
template <class T>
void run_gradient(Call<T> call, const T* g, const ProductGradients<T>& grad, const Threads& threads) {
  call.g = g;
  call.grad = grad;
  const auto workers = run(call, threads, [](Worker<T>& worker, const Tile& tile) { worker.gradient(tile); });
  for (const auto& worker : workers) worker->add_sums(grad);
}

template <class T>
std::optional<EqualRows> repeated_rows(const ProductProblem& problem, const ProductOperands<T>& in) {
  const int64_t limit = worthwhile_rows(problem, in.batch);
  if (limit < 1 || in.rows_w != 1 || problem.dim_y < 2) return std::nullopt;
  if (in.rows_y == 1) return EqualRows{{}, {0, in.batch}};
  return find_equal_rows(in.y, in.batch, problem.dim_y, limit);
}

// The operands of the contracted problem.
template <class T>
ProductOperands<T> contracted(const ProductOperands<T>& in, const T* weights) {
  return {in.batch, in.rows_x, 1, 1, in.x, &ContractedWeights<T>::attribute, weights};
}

// Attributes of its own for each sample, or nearly: work for AttributeGradients.
template <class T>
bool has_distinct_attributes(const ProductProblem& problem, const ProductOperands<T>& in) {
  return in.batch > 1 && in.rows_x == in.batch && in.rows_y == in.batch && in.rows_w == 1 &&
         problem.has_scalar_attributes();
}

// The gradients of x, where wanted, and of the contracted weights.
template <class T>
Scratch<T> contracted_gradient(const ContractedWeights<T>& weights, const ProductOperands<T>& in, const EqualRows& rows,
                               const T* g, T* to_x, bool want_w, const Threads& threads) {
  const Scratch<T> w = to_x ? weights.contract(in.w, threads) : Scratch<T>(0);
  const int64_t size = want_w ? weights.groups() * weights.problem().dim_w : 0;
  Scratch<T> dw(size);
  std::fill_n(dw.get(), size, T(0));
  run_gradient(plan(weights.problem(), contracted(in, w.get()), threads, &rows), g,
               {to_x, nullptr, want_w ? dw.get() : nullptr}, threads);
  return dw;
}

template <class T>
void gradient(const ProductProblem& problem, const ProductOperands<T>& in, const T* g, const ProductGradients<T>& to,
              const Threads& threads) {
  const auto rows = to.x || to.w ? repeated_rows(problem, in) : std::nullopt;
  const bool distinct = has_distinct_attributes(problem, in);
  if (to.x) std::fill_n(to.x, in.rows_x == 1 ? problem.dim_x : 0, T(0));
  if (to.y) std::fill_n(to.y, in.rows_y == 1 ? problem.dim_y : 0, T(0));
  // with scalar attributes each weight's gradient is written once, else it is summed
  if (to.w && !((rows || distinct) && problem.all_weights_used())) std::fill_n(to.w, in.rows_w * problem.dim_w, T(0));
  if (in.batch == 0) return;
  ProductGradients<T> left = to;
  if (rows) {
    const ContractedWeights<T> weights(problem, in, *rows);
    const Scratch<T> dw = contracted_gradient(weights, in, *rows, g, to.x, to.w, threads);
    if (to.w) weights.spread(dw.get(), to.w, threads);
    left.x = left.w = nullptr;
  }
  if (!left.x && !left.y && !left.w) return;
  if (!distinct) return run_gradient(plan(problem, in, threads), g, left, threads);
  const AttributeGradients<T> attributes(problem, in.batch, g, threads);
  if (left.x || left.y) attributes.rows(in.w, in.x, in.y, left.x, left.y);
  if (left.w) attributes.weights(in.x, in.y, left.w, [](size_t, int64_t) {});
}

// Takes the terms of a sum one by one: the first is written where the sum belongs, the others are added to it.
template <class T>
class Sum {
 public:
  Sum(T* to, int64_t size, const Threads& threads) : to_(to), size_(size), threads_(threads) {}

  // Where to write the next term; null where the sum is not wanted.
  T* term() {
    if (!to_ || !started_) return to_;
    if (!next_) next_.emplace(size_);
    return next_->get();
  }
  // The term has been written.
  void add() {
    if (next_)
      threads_.parallel(size_, 1 << 15, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to_[i] += next_->get()[i];
      });
    started_ = true;
  }
  // After the last term.
  void finish() {
    if (to_ && !started_) std::fill_n(to_, size_, T(0));
  }
  bool started() const { return started_; }

 private:
  T* to_;
  int64_t size_;
  const Threads& threads_;
  bool started_ = false;
  std::optional<Scratch<T>> next_;
};

}  // namespace

template <class T>
void tensor_product(const ProductProblem& problem, const ProductOperands<T>& in, T* out, const Threads& threads) {
  const auto rows = repeated_rows(problem, in);
  if (!rows) return run_product(plan(problem, in, threads), out, threads);
  const ContractedWeights<T> weights(problem, in, *rows);
  const Scratch<T> w = weights.contract(in.w, threads);
  run_product(plan(weights.problem(), contracted(in, w.get()), threads, &*rows), out, threads);
}

template <class T>
void tensor_product_tangent(const ProductProblem& problem, const ProductOperands<T>& in, const ProductTangent<T>& along,
                            T* out, const Threads& threads) {
  Sum<T> sum(out, in.batch * problem.dim_out, threads);
  const auto replaced = [&](const ProductProblem& paths, const T* x, const T* y, const T* w) {
    tensor_product(paths, {in.batch, in.rows_x, in.rows_y, in.rows_w, x, y, w}, sum.term(), threads);
    sum.add();
  };
  if (along.x) replaced(problem, along.x, in.y, in.w);
  if (along.y) replaced(problem, in.x, along.y, in.w);
  if (along.w) replaced(problem.weighted(), in.x, in.y, along.w);
  sum.finish();
}

template <class T>
void tensor_product_gradient(const ProductProblem& problem, const ProductOperands<T>& in, const T* g,
                             const ProductGradients<T>& grad, const Threads& threads) {
  gradient(problem, in, g, grad, threads);
}

template <class T>
void tensor_product_gradient_tangent(const ProductProblem& problem, const ProductOperands<T>& in,
                                     const ProductTangent<T>& along, const T* g, const ProductGradients<T>& grad,
                                     const Threads& threads) {
  const auto with = [&](const T* x, const T* y, const T* w) {
    return ProductOperands<T>{in.batch, in.rows_x, in.rows_y, in.rows_w, x, y, w};
  };
  Sum<T> x(grad.x, in.rows_x * problem.dim_x, threads), y(grad.y, in.rows_y * problem.dim_y, threads),
      w(grad.w, in.rows_w * problem.dim_w, threads);
  if (along.x && along.y && has_distinct_attributes(problem, in)) {  // each weight is read, and written, once
    const AttributeGradients<T> attributes(problem, in.batch, g, threads);
    if (grad.x || grad.y) attributes.rows(in.w, along.x, along.y, x.term(), y.term());
    const auto weights_into = [&](T* to, const T* x, const T* y, const auto& more) {
      if (!problem.all_weights_used()) std::fill_n(to, problem.dim_w, T(0));
      attributes.weights(x, y, to, more);
    };
    const auto rows = grad.w ? repeated_rows(problem, in) : std::nullopt;
    if (rows) {
      const ContractedWeights<T> weights(problem, in, *rows);
      const Scratch<T> dw =
          contracted_gradient(weights, with(along.x, in.y, in.w), *rows, g, static_cast<T*>(nullptr), true, threads);
      weights_into(w.term(), in.x, along.y,
                   [&](size_t path, int64_t u) { weights.spread(path, u, dw.get(), grad.w, true); });
    } else if (grad.w) {
      weights_into(w.term(), in.x, along.y, [](size_t, int64_t) {});
      w.add();
      weights_into(w.term(), along.x, in.y, [](size_t, int64_t) {});
    }
    for (Sum<T>* sum : {&x, &y, &w}) sum->add();
  } else {
    // one operand replaced by its tangent: the gradients of the others
    const auto replaced = [&](const ProductOperands<T>& operands, Sum<T>& one, bool first) {
      gradient(problem, operands, g, {first ? nullptr : one.term(), first ? one.term() : nullptr, w.term()}, threads);
      one.add();
      w.add();
    };
    if (along.x) replaced(with(along.x, in.y, in.w), y, true);
    if (along.y) replaced(with(in.x, along.y, in.w), x, false);
  }
  if (along.w) {
    gradient(problem.weighted(), with(in.x, in.y, along.w), g, {x.term(), y.term(), nullptr}, threads);
    x.add();
    y.add();
  }
  for (Sum<T>* sum : {&x, &y, &w}) sum->finish();
}

int64_t contracted_weights(const ProductProblem& problem) {
  int64_t count = 0;
  for (const ProductPath& p : problem.paths) count += int64_t(p.mul1) * p.mul3;
  return count;
}

template <class T>
void contract_attributes(const ProductProblem& problem, int64_t rows, const T* table, const T* w, T* contracted,
                         const Threads& threads) {
  ContractedWeights<T>(problem, int(rows), table).contract(w, contracted, threads);
}

template <class T>
void contract_attributes_gradient(const ProductProblem& problem, int64_t rows, const T* table, const T* w, const T* g,
                                  T* to_table, T* to_w, const Threads& threads) {
  const ContractedWeights<T> weights(problem, int(rows), table);
  if (to_table) weights.to_rows(w, g, to_table, threads);
  if (to_w && !problem.all_weights_used()) std::fill_n(to_w, problem.dim_w, T(0));
  if (to_w) weights.spread(g, to_w, threads);
}

namespace {

// What mix_by_row does as a product with one attribute, the number one.
template <class T, class Body>
void as_product(const ProductProblem& problem, const MixByRowOperands<T>& in, const Threads& threads, const Body& body) {
  const ContractedWeights<T> weights(problem, 0, static_cast<const T*>(nullptr));
  const EqualRows rows = rows_by_group(in.row, in.batch, in.rows);
  const ProductOperands<T> operands{in.batch, in.batch, 1, 1, in.x, &ContractedWeights<T>::attribute, in.w};
  body(plan(weights.problem(), operands, threads, &rows));
}

}  // namespace

template <class T>
void mix_by_row(const ProductProblem& problem, const MixByRowOperands<T>& in, T* out, const Threads& threads) {
  if (in.batch == 0) return;
  as_product(problem, in, threads, [&](const Call<T>& call) { run_product(call, out, threads); });
}

template <class T>
void mix_by_row_gradient(const ProductProblem& problem, const MixByRowOperands<T>& in, const T* g, T* to_x, T* to_w,
                         const Threads& threads) {
  if (to_w) std::fill_n(to_w, in.rows * contracted_weights(problem), T(0));  // sums are added, of rows without samples none
  if (to_x && in.batch == 1) std::fill_n(to_x, problem.dim_x, T(0));
  if (in.batch == 0) return;
  as_product(problem, in, threads, [&](const Call<T>& call) { run_gradient(call, g, {to_x, nullptr, to_w}, threads); });
}

#define NF_INSTANTIATE(T)                                                                                             \
  template void tensor_product<T>(const ProductProblem&, const ProductOperands<T>&, T*, const Threads&);              \
  template void tensor_product_tangent<T>(const ProductProblem&, const ProductOperands<T>&, const ProductTangent<T>&, \
                                          T*, const Threads&);                                                        \
  template void tensor_product_gradient<T>(const ProductProblem&, const ProductOperands<T>&, const T*,                \
                                           const ProductGradients<T>&, const Threads&);                               \
  template void tensor_product_gradient_tangent<T>(const ProductProblem&, const ProductOperands<T>&,                  \
                                                   const ProductTangent<T>&, const T*, const ProductGradients<T>&,    \
                                                   const Threads&);                                                   \
  template void contract_attributes<T>(const ProductProblem&, int64_t, const T*, const T*, T*, const Threads&);       \
  template void contract_attributes_gradient<T>(const ProductProblem&, int64_t, const T*, const T*, const T*, T*, T*, \
                                                const Threads&);                                                      \
  template void mix_by_row<T>(const ProductProblem&, const MixByRowOperands<T>&, T*, const Threads&);                 \
  template void mix_by_row_gradient<T>(const ProductProblem&, const MixByRowOperands<T>&, const T*, T*, T*,           \
                                       const Threads&);
NF_INSTANTIATE(float)
NF_INSTANTIATE(double)

}  // namespace nf
