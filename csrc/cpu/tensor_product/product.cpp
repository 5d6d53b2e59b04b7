#include "cpu/tensor_product/product.h"

#include <memory>

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
void tensor_product_grad(const ProductProblem& problem, const ProductOperands<T>& in, const T* g,
                         const ProductGradients<T>& grad, const Threads& threads) {
  if (grad.x) std::fill_n(grad.x, in.rows_x == 1 ? problem.dim_x : 0, T(0));
  if (grad.y) std::fill_n(grad.y, in.rows_y == 1 ? problem.dim_y : 0, T(0));
  const auto rows = grad.x || grad.w ? repeated_rows(problem, in) : std::nullopt;
  // with repeated rows each weight's gradient is written once, else it is summed
  if (grad.w && !(rows && problem.all_weights_used())) std::fill_n(grad.w, in.rows_w * problem.dim_w, T(0));
  if (in.batch == 0) return;
  if (!rows) return run_gradient(plan(problem, in, threads), g, grad, threads);

  const ContractedWeights<T> weights(problem, in, *rows);
  const Scratch<T> w = grad.x ? weights.contract(in.w, threads) : Scratch<T>(0);
  const int64_t size = weights.groups() * weights.problem().dim_w;
  Scratch<T> dw(size);
  std::fill_n(dw.get(), size, T(0));
  run_gradient(plan(weights.problem(), contracted(in, w.get()), threads, &*rows), g,
               {grad.x, nullptr, grad.w ? dw.get() : nullptr}, threads);
  if (grad.w) weights.spread(dw.get(), grad.w, threads);
  if (grad.y) run_gradient(plan(problem, in, threads), g, {nullptr, grad.y, nullptr}, threads);
}

#define NF_INSTANTIATE(T)                                                                                          \
  template void tensor_product<T>(const ProductProblem&, const ProductOperands<T>&, T*, const Threads&);           \
  template void tensor_product_grad<T>(const ProductProblem&, const ProductOperands<T>&, const T*,                 \
                                       const ProductGradients<T>&, const Threads&);
NF_INSTANTIATE(float)
NF_INSTANTIATE(double)

}  // namespace nf
