// All maps of a layer in one launch. A block computes kTile places (a component of a row) of kTile channels of a target,
// a thread 4 × 4 of them in registers; factors pass through shared memory, kDepth channels of a source at a time.
//
// Small tiles keep many blocks busy where nodes are few: 1000 nodes of 128 channels to l = 2 are 1128 blocks. Two reads of
// four numbers from shared memory serve 16 products; but a block takes a number of float32 from L2 for every 16 too, at the
// peak of an H100 7.4 TB/s, which is all that L2 gives. Where nodes are many, a library's products are better, whose larger
// tiles read a quarter and run on tensor cores (_FEW_ROWS in nequip_fast/engine/rows.py).
#include "cuda/linear/linear.h"

#include <algorithm>

#include "cuda/launch.h"
#include "unroll.h"

namespace nf::cuda {
namespace {

constexpr int kTile = 32, kDepth = 32, kSide = 4, kAcross = kTile / kSide, kThreads = kAcross * kAcross;
constexpr int kStride = kTile + kSide;  // of shared memory: what `load_places` writes is in different banks
constexpr int kPlaces = kTile * 8 / kThreads;  // that a thread reads
constexpr int kMostTargets = 16, kMostSources = 64, kMostParts = 32;  // of a launch

// What a thread reads from shared memory at once.
template <class T>
struct alignas(16) Numbers {
  T at[kSide];
};

struct Target {
  int column, channels, components, first_source, sources;
  bool add;  // to what is there
};

// Rows that take the same weights.
struct Part {
  int64_t begin, rows, weights;
};

struct Args {
  int dim_in, dim_out, targets, sources, parts;
  Target target[kMostTargets];
  LinearSource source[kMostSources];
  Part part[kMostParts];
};

NF_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a block computes: places of a part from component `component` of its row `row` on, channels from `channel` on.
struct Work {
  Target target;
  int64_t row;
  int component, channel;
  int rows;  // from `row` on that there are, as far as a tile can reach
};

// Of the `number`-th block; false where there are not so many.
NF_INLINE bool find(const Args& args, int64_t rows, int64_t number, Work& work) {
  for (int k = 0; k < args.targets; ++k) {
    const int channels = args.target[k].channels, components = args.target[k].components;
    const int64_t across = ceil_div(channels, kTile), blocks = across * ceil_div(rows * components, kTile);
    if (number < blocks) {
      const int64_t place = number / across * kTile, row = place / components;
      const int left = int(rows - row < kTile ? rows - row : kTile);
      work = {args.target[k], row, int(place - row * components), int(number % across) * kTile, left};
      return true;
    }
    number -= blocks;
  }
  return false;
}

// Where the `place`-th of a block is, counted from its first row in rows of `dim` numbers; negative where it is not.
NF_INLINE int offset(const Work& work, int place, int dim) {
  const int at = work.component + place, row = at / work.target.components;
  return row < work.rows ? row * dim + (at - row * work.target.components) : -1;
}

// Eight channels of four places at a time: sectors are read whole where there is one component, and the 32 numbers of a
// warp are in different banks.
template <class T>
NF_INLINE void load_places(T* to, const T* x, const int (&offsets)[kPlaces], int from, int channels, int components) {
  const int lane = int(threadIdx.x) % 8, place = int(threadIdx.x) / 8;
  unroll<kDepth / 8>([&](auto k) {
    const int u = lane + 8 * k;
    unroll<kPlaces>([&](auto p) {
      const bool there = offsets[p] >= 0 && from + u < channels;
      to[u * kStride + place + 8 * p] = there ? x[offsets[p] + (from + u) * components] : T(0);
    });
  });
}

template <class T>
NF_INLINE void load_matrix(T* to, const T* w, const Work& work, int from, int channels) {
  const int v = int(threadIdx.x) % kTile, channel = work.channel + v;
  unroll<kDepth * kTile / kThreads>([&](auto k) {
    const int u = int(threadIdx.x) / kTile + kThreads / kTile * k;
    const bool there = from + u < channels && channel < work.target.channels;
    to[u * kStride + v] = there ? w[(from + u) * work.target.channels + channel] : T(0);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_kernel(const Args args, const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ out) {
  NF_SHARED(Numbers<T>, places, kDepth * kStride / kSide);
  NF_SHARED(Numbers<T>, matrix, kDepth * kStride / kSide);
  const Part part = args.part[blockIdx.y];
  Work work;
  if (!find(args, part.rows, blockIdx.x, work)) return;
  x += (part.begin + work.row) * args.dim_in;
  out += (part.begin + work.row) * args.dim_out + work.target.column;
  w += part.weights;
  int offsets[kPlaces];
  unroll<kPlaces>([&](auto p) { offsets[p] = offset(work, int(threadIdx.x) / 8 + 8 * p, args.dim_in); });
  const int place = int(threadIdx.x) / kAcross * kSide, channel = int(threadIdx.x) % kAcross * kSide;
  T sum[kSide][kSide] = {};
  for (int k = 0; k < work.target.sources; ++k) {
    const LinearSource source = args.source[work.target.first_source + k];
    for (int from = 0; from < source.channels; from += kDepth) {
      __syncthreads();
      load_places(reinterpret_cast<T*>(places), x + source.column, offsets, from, source.channels,
                  work.target.components);
      load_matrix(reinterpret_cast<T*>(matrix), w + source.weight, work, from, source.channels);
      __syncthreads();
      for (int u = 0; u < kDepth; u += 4)
        unroll<4>([&](auto k) {
          const Numbers<T> a = places[((u + k) * kStride + place) / kSide],
                           b = matrix[((u + k) * kStride + channel) / kSide];
          unroll<kSide>([&](auto i) { unroll<kSide>([&](auto j) { sum[i][j] += a.at[i] * b.at[j]; }); });
        });
    }
  }
  unroll<kSide>([&](auto i) {
    const int to = offset(work, place + i, args.dim_out);
    unroll<kSide>([&](auto j) {
      const int v = work.channel + channel + j;
      if (to < 0 || v >= work.target.channels) return;
      T& result = out[to + v * work.target.components];
      result = work.target.add ? result + sum[i][j] : sum[i][j];
    });
  });
}

// launch(args) with as many targets at a time as there is room for. What a target has in sources beyond that is added.
template <class Launch>
void each_group(const LinearProblem& problem, const Launch& launch) {
  Args args{};
  args.dim_in = problem.dim_in, args.dim_out = problem.dim_out;
  const auto flush = [&] {
    if (args.targets) launch(args);
    args.targets = args.sources = 0;
  };
  for (const LinearTarget& t : problem.targets) {
    int done = 0;
    const int sources = int(t.sources.size());
    do {
      const int now = std::min(sources - done, kMostSources);
      if (done || args.targets == kMostTargets || args.sources + now > kMostSources) flush();
      args.target[args.targets++] = {t.column, t.channels, t.components, args.sources, now, done > 0};
      for (int k = 0; k < now; ++k) args.source[args.sources++] = t.sources[done + k];
      done += now;
    } while (done < sources);
  }
  flush();
}

// launch(args, largest number of rows) with some parts at a time that have rows.
template <class Launch>
void each_part(Args& args, int64_t w_stride, const std::vector<int64_t>& counts, const Launch& launch) {
  int64_t begin = 0, most = 0;
  args.parts = 0;
  for (size_t k = 0; k < counts.size(); ++k) {
    if (counts[k]) args.part[args.parts++] = {begin, counts[k], int64_t(k) * w_stride};
    most = std::max(most, counts[k]);
    begin += counts[k];
    if (args.parts == kMostParts || (args.parts && k + 1 == counts.size())) {
      launch(args, most);
      args.parts = 0, most = 0;
    }
  }
}

}  // namespace

template <class T>
int linear(const LinearProblem& problem, const T* x, const T* w, int64_t w_stride, const std::vector<int64_t>& counts,
           T* out, void* stream) {
  int error = cudaSuccess;
  each_group(problem, [&](Args& args) {
    each_part(args, w_stride, counts, [&](const Args& args, int64_t rows) {
      int64_t blocks = 0;
      for (int k = 0; k < args.targets; ++k) {
        const int64_t across = (args.target[k].channels + kTile - 1) / kTile;
        blocks += across * ((rows * args.target[k].components + kTile - 1) / kTile);
      }
      if (blocks == 0 || error != cudaSuccess) return;
      NF_LAUNCH((linear_kernel<T>), dim3(unsigned(blocks), unsigned(args.parts)), kThreads, stream, args, x, w, out);
      error = int(cudaGetLastError());
    });
  });
  return error;
}

template int linear<float>(const LinearProblem&, const float*, const float*, int64_t, const std::vector<int64_t>&, float*,
                           void*);
template int linear<double>(const LinearProblem&, const double*, const double*, int64_t, const std::vector<int64_t>&,
                            double*, void*);

}  // namespace nf::cuda
