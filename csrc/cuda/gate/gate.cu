// One thread a channel of a row, whatever its segment: all segments in one launch.
#include "cuda/gate/gate.h"

#include <algorithm>
#include <vector>

#include "cuda/launch.h"
#include "formulas/activations.h"
#include "formulas/gate.h"

namespace nf::cuda {
namespace {

constexpr int kMostSegments = 16;  // of a launch
constexpr int kThreads = 256;

template <class T>
struct Segment {
  int x, gate, out, mul, dim;
  Activation activation;
  T constant;
};

template <class T>
struct Args {
  int dim_in, dim_out, channels;  // the latter in all segments
  int rows;                       // of a block
  Segment<T> segment[kMostSegments];
};

// body(segment, row, channel) for a block's rows.
template <class T, class Body>
NF_INLINE void each_channel(const Args<T>& args, int64_t all, const Body& body) {
  const int64_t first = int64_t(blockIdx.x) * args.rows;
  const int rows = int(all - first < args.rows ? all - first : args.rows);
  for (int i = threadIdx.x; i < rows * args.channels; i += kThreads) {
    int k = 0, channel = i % args.channels;
    while (channel >= args.segment[k].mul) channel -= args.segment[k++].mul;
    body(args.segment[k], first + i / args.channels, channel);
  }
}

template <class T>
NF_INLINE Jet<T> activated(const Segment<T>& s, T x) {
  Jet<T> f{};
  unroll<kActivations>([&](auto a) {
    if (int(s.activation) == a) f = activate<T, Activation(a.value)>(x);
  });
  return {s.constant * f.value, s.constant * f.first, s.constant * f.second};
}

// run(dim), known to the compiler for irreps up to l = 4
template <class Run>
NF_INLINE auto with_dim(int dim, const Run& run) {
  switch (dim) {
    case 1: return run(Index<1>{});
    case 3: return run(Index<3>{});
    case 5: return run(Index<5>{});
    case 7: return run(Index<7>{});
    case 9: return run(Index<9>{});
    default: return run(dim);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gate_kernel(const Args<T> args, const T* __restrict__ x, T* __restrict__ out, int64_t rows) {
  each_channel(args, rows, [&](const Segment<T>& s, int64_t row, int u) {
    const T* const from = x + row * args.dim_in;
    T* const to = out + row * args.dim_out + s.out + u * s.dim;
    const T f = activated(s, from[(s.gate < 0 ? s.x : s.gate) + u]).value;
    if (s.gate < 0)
      *to = f;
    else
      with_dim(s.dim, [&](auto dim) { gate_channel(f, from + s.x + u * s.dim, to, dim); });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gate_vjp_kernel(const Args<T> args, const T* __restrict__ x, const T* __restrict__ g, T* __restrict__ dx,
                    int64_t rows) {
  each_channel(args, rows, [&](const Segment<T>& s, int64_t row, int u) {
    const T *const from = x + row * args.dim_in, *const at_g = g + row * args.dim_out + s.out + u * s.dim;
    T* const to = dx + row * args.dim_in;
    const int scalar = (s.gate < 0 ? s.x : s.gate) + u, channel = s.x + u * s.dim;
    const Jet<T> f = activated(s, from[scalar]);
    to[scalar] = s.gate < 0 ? f.first * *at_g : with_dim(s.dim, [&](auto dim) {
      return gate_vjp_channel(f.value, f.first, from + channel, at_g, to + channel, dim);
    });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gate_vjp_grad_kernel(const Args<T> args, const T* __restrict__ x, const T* __restrict__ g, const T* __restrict__ c,
                         T* __restrict__ dx, T* __restrict__ dg, int64_t rows) {
  each_channel(args, rows, [&](const Segment<T>& s, int64_t row, int u) {
    const int64_t at_out = row * args.dim_out + s.out + u * s.dim;
    const T *const from = x + row * args.dim_in, *const along = c + row * args.dim_in;
    T* const to = dx + row * args.dim_in;
    const int scalar = (s.gate < 0 ? s.x : s.gate) + u, channel = s.x + u * s.dim;
    const Jet<T> f = activated(s, from[scalar]);
    if (s.gate < 0) {
      to[scalar] = along[scalar] * f.second * g[at_out];
      dg[at_out] = along[scalar] * f.first;
    } else {
      to[scalar] = with_dim(s.dim, [&](auto dim) {
        return gate_vjp_grad_channel(f.value, f.first, f.second, from + channel, g + at_out, along + channel,
                                     along[scalar], to + channel, dg + at_out, dim);
      });
    }
  });
}

// launch(args, blocks) for some segments at a time.
template <class T, class Launch>
int launch_each(const GateProblem& problem, int64_t rows, const Launch& launch) {
  if (rows == 0) return cudaSuccess;
  for (size_t k = 0; k < problem.segments.size(); k += kMostSegments) {
    Args<T> args{problem.dim_in, problem.dim_out, 0, 0, {}};
    for (size_t i = k; i < std::min(k + kMostSegments, problem.segments.size()); ++i) {
      const GateSegment& s = problem.segments[i];
      args.segment[i - k] = {s.x, s.gate, s.out, s.mul, s.dim, s.activation, T(s.constant)};
      args.channels += s.mul;
    }
    if (args.channels == 0) continue;
    args.rows = std::max(1, 2 * kThreads / args.channels);
    launch(args, unsigned((rows + args.rows - 1) / args.rows));
    if (const int error = int(cudaGetLastError()); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// What no segment reads has gradient zero.
template <class T>
int clear(const GateProblem& problem, T* dx, int64_t rows, void* stream) {
  return problem.reads_all ? int(cudaSuccess) : zero(dx, rows * problem.dim_in, stream);
}

}  // namespace

template <class T>
int gate(const GateProblem& problem, const T* x, T* out, int64_t rows, void* stream) {
  return launch_each<T>(problem, rows, [&](const Args<T>& args, unsigned blocks) {
    NF_LAUNCH((gate_kernel<T>), blocks, kThreads, stream, args, x, out, rows);
  });
}

template <class T>
int gate_vjp(const GateProblem& problem, const T* x, const T* g, T* dx, int64_t rows, void* stream) {
  if (const int error = clear(problem, dx, rows, stream); error != cudaSuccess) return error;
  return launch_each<T>(problem, rows, [&](const Args<T>& args, unsigned blocks) {
    NF_LAUNCH((gate_vjp_kernel<T>), blocks, kThreads, stream, args, x, g, dx, rows);
  });
}

template <class T>
int gate_vjp_grad(const GateProblem& problem, const T* x, const T* g, const T* c, T* dx, T* dg, int64_t rows,
                  void* stream) {
  if (const int error = clear(problem, dx, rows, stream); error != cudaSuccess) return error;
  return launch_each<T>(problem, rows, [&](const Args<T>& args, unsigned blocks) {
    NF_LAUNCH((gate_vjp_grad_kernel<T>), blocks, kThreads, stream, args, x, g, c, dx, dg, rows);
  });
}

#define NF_GATE(T)                                                                   \
  template int gate<T>(const GateProblem&, const T*, T*, int64_t, void*);             \
  template int gate_vjp<T>(const GateProblem&, const T*, const T*, T*, int64_t, void*); \
  template int gate_vjp_grad<T>(const GateProblem&, const T*, const T*, const T*, T*, T*, int64_t, void*);
NF_GATE(float)
NF_GATE(double)
#undef NF_GATE

}  // namespace nf::cuda
