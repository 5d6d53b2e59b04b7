// One thread a row. Rows of harmonics pass through shared memory, so that a block reads and writes them as one run of
// memory; a thread's own accesses would be a row apart.
#include "formulas/harmonics.h"

#include <algorithm>
#include <vector>

#include "cuda/launch.h"
#include "cuda/spherical_harmonics/harmonics.h"

namespace nf::cuda {
namespace {

constexpr int kMostRuns = 16;  // of a launch; degrees from 0 on in order are one run

// Neighbouring columns that are neighbouring harmonics.
struct ColumnRun {
  int column, harmonic, count;
};

template <class T>
struct Args {
  T scale[kDegrees];
  int l_max, width, runs;
  bool normalize, add;  // add: to the gradient of r that is there
  ColumnRun run[kMostRuns];
};

// With degrees known to the compiler (`known`, else −1) recurrences stay in registers; above, in local memory.
template <int known>
struct Shape {
  static constexpr int harmonics = known < 0 ? kMaxDim : (known + 1) * (known + 1);
  static constexpr int threads = known < 0 ? 32 : 128;
  static constexpr int stride = harmonics | 1;  // odd: threads of a warp are in different banks
};

template <int known, class T>
NF_INLINE auto degree(const Args<T>& args) {
  if constexpr (known < 0)
    return args.l_max;
  else
    return Index<known>{};
}

// The harmonics of a block's rows in shared memory.
template <class T, int known>
struct Tile {
  using S = Shape<known>;
  T* memory;
  int64_t first;
  int rows;

  NF_INLINE Tile(T* memory, int64_t all)
      : memory(memory), first(int64_t(blockIdx.x) * S::threads),
        rows(int(all - first < S::threads ? all - first : S::threads)) {}

  NF_INLINE T& at(int harmonic) const { return memory[int(threadIdx.x) * S::stride + harmonic]; }
  NF_INLINE bool has_row() const { return int(threadIdx.x) < rows; }
  NF_INLINE int64_t row() const { return first + threadIdx.x; }

  // body(row, column, harmonic) for what the threads share of a run.
  template <class Body>
  NF_INLINE void share(const ColumnRun& run, const Body& body) const {
    for (int i = threadIdx.x; i < rows * run.count; i += S::threads)
      body(i / run.count, run.column + i % run.count, run.harmonic + i % run.count);
  }
  // Cotangents of rows: zero where the columns lack a harmonic, the sum where they have it repeatedly.
  NF_INLINE void read(const Args<T>& args, const T* g) const {
    for (int i = threadIdx.x; i < S::threads * S::stride; i += S::threads) memory[i] = 0;
    __syncthreads();
    for (int k = 0; k < args.runs; ++k) {
      share(args.run[k], [&](int row, int column, int harmonic) {
        memory[row * S::stride + harmonic] += g[(first + row) * args.width + column];
      });
      __syncthreads();
    }
  }
  NF_INLINE void write(const Args<T>& args, T* y) const {
    __syncthreads();
    for (int k = 0; k < args.runs; ++k)
      share(args.run[k], [&](int row, int column, int harmonic) {
        y[(first + row) * args.width + column] = memory[row * S::stride + harmonic];
      });
  }
};

template <class T>
NF_INLINE void load_vector(T (&to)[3], const T* rows, int64_t row, bool there) {
  unroll<3>([&](auto c) { to[c] = there ? rows[row * 3 + c] : T(0); });
}

template <class T, int known>
__global__ void __launch_bounds__(Shape<known>::threads)
    harmonics_kernel(const Args<T> args, const T* __restrict__ r, T* __restrict__ y, int64_t rows) {
  NF_SHARED(T, memory, Shape<known>::threads * Shape<known>::stride);
  const Tile<T, known> tile(memory, rows);
  T v[3];
  load_vector(v, r, tile.row(), tile.has_row());
  harmonics<T>(degree<known>(args), args, direction<T>(args, v), [&](int k, T value) { tile.at(k) = value; });
  tile.write(args, y);
}

template <class T, int known>
__global__ void __launch_bounds__(Shape<known>::threads)
    harmonics_vjp_kernel(const Args<T> args, const T* __restrict__ r, const T* __restrict__ g, T* __restrict__ dr,
                         int64_t rows) {
  NF_SHARED(T, memory, Shape<known>::threads * Shape<known>::stride);
  const Tile<T, known> tile(memory, rows);
  tile.read(args, g);
  if (!tile.has_row()) return;
  T v[3];
  load_vector(v, r, tile.row(), true);
  T* const to = dr + tile.row() * 3;
  harmonics_vjp<T>(
      degree<known>(args), args, direction<T>(args, v), [&](int k) { return tile.at(k); },
      [&](int c, T value) { to[c] = args.add ? to[c] + value : value; });
}

template <class T, int known>
__global__ void __launch_bounds__(Shape<known>::threads)
    harmonics_vjp_grad_kernel(const Args<T> args, const T* __restrict__ r, const T* __restrict__ g,
                              const T* __restrict__ c, T* __restrict__ dr, T* __restrict__ dg, int64_t rows) {
  NF_SHARED(T, memory, Shape<known>::threads * Shape<known>::stride);
  const Tile<T, known> tile(memory, rows);
  tile.read(args, g);
  T v[3], along[3];
  load_vector(v, r, tile.row(), tile.has_row());
  load_vector(along, c, tile.row(), tile.has_row());
  T* const to = dr + tile.row() * 3;
  harmonics_vjp_grad<T>(
      degree<known>(args), args, direction<T>(args, v, along), [&](int k) { return tile.at(k); },
      [&](int a, T value) {
        if (tile.has_row()) to[a] = args.add ? to[a] + value : value;
      },
      [&](int k, T value) { tile.at(k) = value; });
  tile.write(args, dg);
}

// A launch for every kMostRuns runs; gradients of r add up.
template <class T>
std::vector<Args<T>> launches(const HarmonicProblem& problem) {
  std::vector<Args<T>> all;
  for (int c = 0; c < problem.dim(); ++c) {
    const int harmonic = problem.columns[c];
    if (c == 0 || harmonic != problem.columns[c - 1] + 1) {
      if (all.empty() || all.back().runs == kMostRuns) {
        Args<T> args{{}, 0, problem.dim(), 0, problem.normalize, !all.empty(), {}};
        for (int l = 0; l <= problem.l_max; ++l) args.scale[l] = T(problem.scale[l]);
        all.push_back(args);
      }
      all.back().run[all.back().runs++] = {c, harmonic, 0};
    }
    Args<T>& args = all.back();
    ++args.run[args.runs - 1].count;
    while ((args.l_max + 1) * (args.l_max + 1) <= harmonic) ++args.l_max;
  }
  return all;
}

// launch(known, args, blocks, threads) until one fails.
template <class T, class Launch>
int launch_each(const HarmonicProblem& problem, int64_t rows, const Launch& launch) {
  if (rows == 0) return cudaSuccess;
  for (const Args<T>& args : launches<T>(problem)) {
    with_degree(args.l_max, [&](auto l_max) {
      constexpr int known = [] {
        if constexpr (kKnown<decltype(l_max)>)
          return decltype(l_max)::value;
        else
          return -1;
      }();
      constexpr int threads = Shape<known>::threads;
      launch(Index<known>{}, args, unsigned((rows + threads - 1) / threads), threads);
    });
    if (const int error = int(cudaGetLastError()); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

template <class T>
int harmonics(const HarmonicProblem& problem, const T* r, T* y, int64_t rows, void* stream) {
  return launch_each<T>(problem, rows, [&](auto known, const Args<T>& args, unsigned blocks, int threads) {
    NF_LAUNCH((harmonics_kernel<T, decltype(known)::value>), blocks, threads, stream, args, r, y, rows);
  });
}

template <class T>
int harmonics_vjp(const HarmonicProblem& problem, const T* r, const T* g, T* dr, int64_t rows, void* stream) {
  return launch_each<T>(problem, rows, [&](auto known, const Args<T>& args, unsigned blocks, int threads) {
    NF_LAUNCH((harmonics_vjp_kernel<T, decltype(known)::value>), blocks, threads, stream, args, r, g, dr, rows);
  });
}

template <class T>
int harmonics_vjp_grad(const HarmonicProblem& problem, const T* r, const T* g, const T* c, T* dr, T* dg, int64_t rows,
                       void* stream) {
  return launch_each<T>(problem, rows, [&](auto known, const Args<T>& args, unsigned blocks, int threads) {
    NF_LAUNCH((harmonics_vjp_grad_kernel<T, decltype(known)::value>), blocks, threads, stream, args, r, g, c, dr, dg,
              rows);
  });
}

#define NF_HARMONICS(T)                                                                        \
  template int harmonics<T>(const HarmonicProblem&, const T*, T*, int64_t, void*);             \
  template int harmonics_vjp<T>(const HarmonicProblem&, const T*, const T*, T*, int64_t, void*); \
  template int harmonics_vjp_grad<T>(const HarmonicProblem&, const T*, const T*, const T*, T*, T*, int64_t, void*);
NF_HARMONICS(float)
NF_HARMONICS(double)
#undef NF_HARMONICS

}  // namespace nf::cuda
