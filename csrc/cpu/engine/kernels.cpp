#include "cpu/engine/kernels.h"

#include <algorithm>

#include "cpu/columns.h"
#include "cpu/gate/activations.h"
#include "cpu/math.h"
#include "cpu/unroll.h"

namespace nf::NF_ISA {
namespace {

// --- matrix product: a block of rows times a few vectors of columns, the sums in registers ---

constexpr int kRows = kVectorBytes == 64 ? 8 : 4, kVectors = kVectorBytes == 64 ? 3 : 2;

template <class T, int rows, int vectors>
void product_block(const T* const* a, int inner, const T* b, int width, T* const* c, int at, bool add) {
  using V = Vec<T>;
  V sum[rows][vectors];
  unroll<rows>([&](auto r) {
    unroll<vectors>([&](auto j) { sum[r][j] = add ? load(c[r] + at + j * kLanes<T>) : V{}; });
  });
  const T* row[rows];
  unroll<rows>([&](auto r) { row[r] = a[r]; });
  b += at;
  for (int64_t k = 0; k < inner; ++k, b += width) {
    V factor[vectors];
    unroll<vectors>([&](auto j) { factor[j] = load(b + j * kLanes<T>); });
    unroll<rows>([&](auto r) { unroll<vectors>([&](auto j) { sum[r][j] += row[r][k] * factor[j]; }); });
  }
  unroll<rows>([&](auto r) { unroll<vectors>([&](auto j) { store(c[r] + at + j * kLanes<T>, sum[r][j]); }); });
}

template <class T, int vectors>
void product_columns(int rows, const T* const* a, int inner, const T* b, int width, T* const* c, int at, bool add) {
  int r = 0;
  for (; r + kRows <= rows; r += kRows) product_block<T, kRows, vectors>(a + r, inner, b, width, c + r, at, add);
  if (kRows > 4 && r + 4 <= rows) product_block<T, 4, vectors>(a + r, inner, b, width, c + r, at, add), r += 4;
  if (r + 2 <= rows) product_block<T, 2, vectors>(a + r, inner, b, width, c + r, at, add), r += 2;
  if (r < rows) product_block<T, 1, vectors>(a + r, inner, b, width, c + r, at, add);
}

template <class T>
void multiply(int rows, const T* const* a, int inner, const T* b, int width, T* const* c, bool add) {
  int at = 0;
  for (; at + kVectors * kLanes<T> <= width; at += kVectors * kLanes<T>)
    product_columns<T, kVectors>(rows, a, inner, b, width, c, at, add);
  if (kVectors > 2 && at + 2 * kLanes<T> <= width)
    product_columns<T, 2>(rows, a, inner, b, width, c, at, add), at += 2 * kLanes<T>;
  if (at < width) product_columns<T, 1>(rows, a, inner, b, width, c, at, add);
}

// --- radial tables ---

// h[0] · slope + h[1] · difference + h[2] · next slope
template <class T>
[[gnu::always_inline]] inline Vec<T> interpolate(const T* h, const T* knot, int width, int u) {
  return h[0] * load(knot + width + u) + h[1] * load(knot + 2 * width + u) + h[2] * load(knot + 4 * width + u);
}

template <class T>
void weights(const Interval<T>* at, int edges, const T* table, int width, T* w) {
  for (int e = 0; e < edges; ++e, w += width) {
    const T* const knot = table + at[e].knot * kTableRows * width;
    for (int u = 0; u < width; u += kLanes<T>)
      store(w + u, load(knot + u) + interpolate(at[e].value, knot, width, u));
  }
}

template <class T>
void weights_and_slopes(const Interval<T>* at, int edges, const T* table, int width, T* w, T* slope) {
  for (int e = 0; e < edges; ++e, w += width, slope += width) {
    const T* const knot = table + at[e].knot * kTableRows * width;
    for (int u = 0; u < width; u += kLanes<T>) {
      store(w + u, load(knot + u) + interpolate(at[e].value, knot, width, u));
      store(slope + u, interpolate(at[e].slope, knot, width, u));
    }
  }
}

template <class T>
void add_dot(const T* a, const T* b, int rows, int width, T* to) {
  for (int e = 0; e < rows; ++e, a += width, b += width) {
    Vec<T> sum{};
    for (int u = 0; u < width; u += kLanes<T>) sum += load(a + u) * load(b + u);
    to[e] += sum_lanes<T>(sum);
  }
}

// --- gate ---

template <class T, class Body>
void with_activation(Activation activation, const Body& body) {
  unroll<kActivations>([&](auto a) {
    constexpr Activation known = Activation(decltype(a)::value);
    if (activation == known) body([](Vec<T> x) { return activate<T, known>(x); });
  });
}

template <class T>
void activate_all(Activation activation, double constant_, T* x, T* slope, int64_t count) {
  const T constant = T(constant_);
  with_activation<T>(activation, [&](auto&& function) {
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const auto found = function(load(x + i));
      store(x + i, constant * found.value);
      if (slope) store(slope + i, constant * found.first);
    }
  });
}

// |x| of channels; `long_enough` where it is not the shortest one.
template <class T, class Longer>
Vec<T> norm(const ChannelGate& gate, const T* x, Longer& long_enough) {
  Vec<T> square{};
  for (int m = 0; m < gate.components; ++m) {
    const Vec<T> component = load(x + m * gate.padded);
    square += component * component;
  }
  constexpr T shortest = T(kShortestNorm * kShortestNorm);
  long_enough = square >= shortest;
  return sqrt<T>(long_enough ? square : broadcast<T>(shortest));
}
template <class T>
using Mask = decltype(Vec<T>{} < Vec<T>{});

template <class T>
void gate(const ChannelGate& gate, const T* x, T* out) {
  const T constant = T(gate.constant);
  with_activation<T>(gate.activation, [&](auto&& function) {
    for (int u = 0; u < gate.padded; u += kLanes<T>) {
      if (gate.gate == kNoGate) {
        store(out + gate.out + u, constant * function(load(x + gate.x + u)).value);
        continue;
      }
      Vec<T> factor;
      if (gate.gate == kNormGate) {
        Mask<T> unused;
        const Vec<T> length = norm(gate, x + gate.x + u, unused);
        factor = constant * function(length).value / length;
      } else {
        factor = constant * function(load(x + gate.gate + u)).value;
      }
      for (int m = 0; m < gate.components; ++m)
        store(out + gate.out + m * gate.padded + u, factor * load(x + gate.x + m * gate.padded + u));
    }
  });
}

template <class T>
void gate_vjp(const ChannelGate& gate, const T* x, const T* g, T* dx) {
  const T constant = T(gate.constant);
  with_activation<T>(gate.activation, [&](auto&& function) {
    for (int u = 0; u < gate.padded; u += kLanes<T>) {
      if (gate.gate == kNoGate) {
        store(dx + gate.x + u, constant * function(load(x + gate.x + u)).first * load(g + gate.out + u));
        continue;
      }
      if (gate.gate == kNormGate) {
        Mask<T> long_enough;
        const Vec<T> length = norm(gate, x + gate.x + u, long_enough);
        const auto activated = function(length);
        const Vec<T> factor = constant * activated.value / length;
        Vec<T> along{};  // Σ g x, times the derivative of the factor by |x|, over |x|
        for (int m = 0; m < gate.components; ++m)
          along += load(g + gate.out + m * gate.padded + u) * load(x + gate.x + m * gate.padded + u);
        along *= (constant * activated.first - factor) / (length * length);
        along = long_enough ? along : Vec<T>{};
        for (int m = 0; m < gate.components; ++m)
          store(dx + gate.x + m * gate.padded + u, factor * load(g + gate.out + m * gate.padded + u) +
                                                       along * load(x + gate.x + m * gate.padded + u));
        continue;
      }
      const auto activated = function(load(x + gate.gate + u));
      const Vec<T> factor = constant * activated.value;
      Vec<T> sum{};
      for (int m = 0; m < gate.components; ++m) {
        const Vec<T> cotangent = load(g + gate.out + m * gate.padded + u);
        sum += cotangent * load(x + gate.x + m * gate.padded + u);
        store(dx + gate.x + m * gate.padded + u, factor * cotangent);
      }
      store(dx + gate.gate + u, constant * activated.first * sum);
    }
  });
}

// --- edges in lanes ---

template <class T>
void columns(const T* rows, int dim, int count, T* out) {
  read_columns<T>(rows, dim, count, [&](int c, Vec<T> column) { store(out + c * kLanes<T>, column); });
}

template <class T>
void add_sums(const T* partial, int dim, int count, T* rows) {
  for (int i = 0; i < dim * count; ++i) rows[i] += sum_lanes<T>(load(partial + i * kLanes<T>));
}

template <class T>
constexpr EngineKernels<T> kKernels{kLanes<T>, multiply<T>, weights<T>,  weights_and_slopes<T>, add_dot<T>,
                                    activate_all<T>, gate<T>,   gate_vjp<T>, columns<T>, add_sums<T>};

}  // namespace

template <>
const EngineKernels<float>& engine_kernels<float>() {
  return kKernels<float>;
}

template <>
const EngineKernels<double>& engine_kernels<double>() {
  return kKernels<double>;
}

}  // namespace nf::NF_ISA
