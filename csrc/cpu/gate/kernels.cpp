// Vector lanes along channels. Activations are computed of runs of scalars; those of gate scalars are kept in buffers,
// then spread over the components of their irreps.
#include <algorithm>
#include <array>
#include <utility>

#include "cpu/activate.h"
#include "cpu/columns.h"
#include "cpu/gate/gate.h"
#include "formulas/gate.h"

namespace nf::NF_ISA {
namespace {

// Activated gates of one segment; contents undefined until filled.
template <class T>
struct Buffers {
  std::vector<T> value, first, second;

  explicit Buffers(const GateProblem& problem) {
    int longest = 0;
    for (const GateSegment& s : problem.segments) longest = std::max(longest, s.mul);
    for (auto* buffer : {&value, &first, &second}) buffer->resize(longest);
  }
  template <int order>
  void fill(const GateSegment& s, const T* x) {
    kActivate<T, order>[int(s.activation)](x + (s.gate < 0 ? s.x : s.gate), s.mul, T(1), T(s.constant), value.data(),
                                           first.data(), second.data());
  }
};

// kLanes channels of `dim` components each: dim vectors in the order of memory.
template <class T, int dim>
struct Irreps {
  Vec<T> at[dim];

  static Irreps read(const T* p, int channels) {
    Irreps result;
    for (int k = 0; k < dim; ++k) {
      const int left = channels * dim - k * kLanes<T>;
      result.at[k] = left > 0 ? load(p + k * kLanes<T>, left) : Vec<T>{};
    }
    return result;
  }
  void write(T* p, int channels) const {
    for (int k = 0; k < dim; ++k)
      if (const int left = channels * dim - k * kLanes<T>; left > 0) store(p + k * kLanes<T>, at[k], left);
  }

  template <int k>
  static constexpr int channel(int lane) {
    return (k * kLanes<T> + lane) / dim;
  }
  // Each channel times a number of its own.
  friend Irreps operator*(Vec<T> factor, const Irreps& irreps) {
    Irreps result;
    [&]<int... k>(std::integer_sequence<int, k...>) {
      ((result.at[k] = irreps.at[k] * shuffle<channel<k>>(factor, factor)), ...);
    }(std::make_integer_sequence<int, dim>{});
    return result;
  }
  friend Irreps operator+(const Irreps& a, const Irreps& b) {
    Irreps result;
    for (int k = 0; k < dim; ++k) result.at[k] = a.at[k] + b.at[k];
    return result;
  }
  // Σ_m a[m] b[m] of each channel
  static Vec<T> dot(const Irreps& a, const Irreps& b) {
    Vec<T> products[dim], components[dim], sum{};
    for (int k = 0; k < dim; ++k) products[k] = a.at[k] * b.at[k];
    Few<T, dim>::template rearrange<typename Few<T, dim>::Col>(products, components);
    for (int m = 0; m < dim; ++m) sum += components[m];
    return sum;
  }
};

// body(u, channels, type of irreps): for a dim that has no vectors of its own, channel by channel in `Single`.
template <class T, class Body>
void each_block(const GateSegment& s, const Body& body) {
  const auto vectors = [&]<int dim>(std::integral_constant<int, dim>) {
    for (int u = 0; u < s.mul; u += kLanes<T>) body.template run<dim>(u, s.mul - u);
  };
  switch (s.dim) {
    case 1: return vectors(std::integral_constant<int, 1>{});
    case 3: return vectors(std::integral_constant<int, 3>{});
    case 5: return vectors(std::integral_constant<int, 5>{});
    case 7: return vectors(std::integral_constant<int, 7>{});
    case 9: return vectors(std::integral_constant<int, 9>{});
    default:
      for (int u = 0; u < s.mul; ++u) body.one(u, s.dim);
  }
}

template <class T>
struct Forward {
  const T *f, *x;
  T* out;

  template <int dim>
  void run(int u, int channels) const {
    (load(f + u, channels) * Irreps<T, dim>::read(x + u * dim, channels)).write(out + u * dim, channels);
  }
  void one(int u, int dim) const {
    gate_channel(f[u], x + u * dim, out + u * dim, dim);
  }
};

template <class T>
struct Backward {
  const T *f, *slope, *x, *g;
  T *d_gate, *dx;

  template <int dim>
  void run(int u, int channels) const {
    const auto gs = Irreps<T, dim>::read(g + u * dim, channels), xs = Irreps<T, dim>::read(x + u * dim, channels);
    (load(f + u, channels) * gs).write(dx + u * dim, channels);
    store(d_gate + u, load(slope + u, channels) * Irreps<T, dim>::dot(xs, gs), channels);
  }
  void one(int u, int dim) const {
    d_gate[u] = gate_vjp_channel(f[u], slope[u], x + u * dim, g + u * dim, dx + u * dim, dim);
  }
};

// Of S = c_gate f' (x · g) + f (c · g).
template <class T>
struct Second {
  const T *f, *slope, *bend, *x, *g, *c, *c_gate;
  T *d_gate, *dx, *dg;

  template <int dim>
  void run(int u, int channels) const {
    using I = Irreps<T, dim>;
    const auto xs = I::read(x + u * dim, channels), gs = I::read(g + u * dim, channels),
               cs = I::read(c + u * dim, channels);
    const Vec<T> s = load(c_gate + u, channels), first = load(slope + u, channels);
    store(d_gate + u, s * load(bend + u, channels) * I::dot(xs, gs) + first * I::dot(cs, gs), channels);
    ((s * first) * gs).write(dx + u * dim, channels);
    ((s * first) * xs + load(f + u, channels) * cs).write(dg + u * dim, channels);
  }
  void one(int u, int dim) const {
    const int k = u * dim;
    d_gate[u] = gate_vjp_grad_channel(f[u], slope[u], bend[u], x + k, g + k, c + k, c_gate[u], dx + k, dg + k, dim);
  }
};

template <class T>
void gate(const GateProblem& problem, const T* x, T* out, int64_t begin, int64_t end) {
  Buffers<T> f(problem);
  for (int64_t i = begin; i < end; ++i) {
    const T* row = x + i * problem.dim_in;
    T* to = out + i * problem.dim_out;
    for (const GateSegment& s : problem.segments) {
      if (s.gate < 0) {
        kActivate<T, 0>[int(s.activation)](row + s.x, s.mul, T(1), T(s.constant), to + s.out, nullptr, nullptr);
      } else {
        f.template fill<0>(s, row);
        each_block<T>(s, Forward<T>{f.value.data(), row + s.x, to + s.out});
      }
    }
  }
}

template <class T>
void vjp(const GateProblem& problem, const T* x, const T* g, T* dx, int64_t begin, int64_t end) {
  Buffers<T> f(problem);
  for (int64_t i = begin; i < end; ++i) {
    const T *row = x + i * problem.dim_in, *from = g + i * problem.dim_out;
    T* to = dx + i * problem.dim_in;
    if (!problem.reads_all) std::fill_n(to, problem.dim_in, T(0));
    for (const GateSegment& s : problem.segments) {
      f.template fill<1>(s, row);
      if (s.gate < 0)
        for (int u = 0; u < s.mul; ++u) to[s.x + u] = f.first[u] * from[s.out + u];
      else
        each_block<T>(s, Backward<T>{f.value.data(), f.first.data(), row + s.x, from + s.out, to + s.gate, to + s.x});
    }
  }
}

template <class T>
void vjp_grad(const GateProblem& problem, const T* x, const T* g, const T* c, T* dx, T* dg, int64_t begin,
              int64_t end) {
  Buffers<T> f(problem);
  for (int64_t i = begin; i < end; ++i) {
    const T *row = x + i * problem.dim_in, *from = g + i * problem.dim_out, *along = c + i * problem.dim_in;
    T *to = dx + i * problem.dim_in, *to_g = dg + i * problem.dim_out;
    if (!problem.reads_all) std::fill_n(to, problem.dim_in, T(0));
    for (const GateSegment& s : problem.segments) {
      f.template fill<2>(s, row);
      if (s.gate < 0) {
        for (int u = 0; u < s.mul; ++u) {
          to[s.x + u] = along[s.x + u] * f.second[u] * from[s.out + u];
          to_g[s.out + u] = along[s.x + u] * f.first[u];
        }
      } else {
        each_block<T>(s, Second<T>{f.value.data(), f.first.data(), f.second.data(), row + s.x, from + s.out,
                                   along + s.x, along + s.gate, to + s.gate, to + s.x, to_g + s.out});
      }
    }
  }
}

}  // namespace

template <>
const GateKernels<float>& gate_kernels<float>() {
  static constexpr GateKernels<float> kernels{gate<float>, vjp<float>, vjp_grad<float>};
  return kernels;
}

template <>
const GateKernels<double>& gate_kernels<double>() {
  static constexpr GateKernels<double> kernels{gate<double>, vjp<double>, vjp_grad<double>};
  return kernels;
}

}  // namespace nf::NF_ISA
