#include "cpu/engine/kernels.h"

#include <algorithm>

#include "cpu/columns.h"
#include "cpu/math.h"
#include "cpu/transpose.h"
#include "formulas/activations.h"
#include "formulas/hermite.h"
#include "unroll.h"

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

template <class T>
void hermite(const T* ts, const T* widths, const T* densities, int64_t count, T* basis) {
  for (int64_t i = 0; i < count; i += kLanes<T>, basis += kLanes<T>) {
    const HermiteBasis<T> at(load(ts + i), load(widths + i), load(densities + i));
    unroll<kBasis>([&](auto k) { store(basis + k * count, at.factor[k]); });
  }
}

// The five factors of a value or of a derivative in registers, where a store to the weights cannot make the compiler
// read them again.
template <class T>
struct Factors {
  Vec<T> factor[5];

  Factors(const T* basis, int64_t stride) {
    unroll<5>([&](auto k) { factor[k] = broadcast<T>(basis[k * stride]); });
  }
  Vec<T> operator()(const Vec<T> (&rows)[5]) const {
    Vec<T> sum = factor[0] * rows[0];
    unroll<4>([&](auto k) { sum += factor[k + 1] * rows[k + 1]; });
    return sum;
  }
};

// body(u, value, the rows that Factors multiply) for every vector of a path's weights at place e
template <class T, class Body>
[[gnu::always_inline]] inline void each_row(const TablePlaces<T>& at, int e, const T* table, int width, const Body& body) {
  const T *knot = table + int64_t(at.knot[e]) * kTableRows * width, *next = knot + kTableRows * width;
  for (int u = 0; u < width; u += kLanes<T>, knot += kTableRows * kLanes<T>, next += kTableRows * kLanes<T>) {
    const auto row = [](const T* of, int k) { return load(of + k * kLanes<T>); };
    const Vec<T> rows[5] = {row(knot, 1), row(knot, 2), row(knot, 3), row(next, 1), row(next, 2)};
    body(u, row(knot, 0), rows);
  }
}

template <class T>
void weights(const TablePlaces<T>& at, int first, int edges, const T* table, int width, T* w) {
  for (int e = first; e < first + edges; ++e, w += width) {
    const Factors<T> value(at.basis + e, at.stride);
    each_row(at, e, table, width, [&](int u, Vec<T> at_knot, const Vec<T>(&rows)[5]) { store(w + u, at_knot + value(rows)); });
  }
}

template <class T>
void weights_and_slopes(const TablePlaces<T>& at, int first, int edges, const T* table, int width, T* w, T* slope) {
  for (int e = first; e < first + edges; ++e, w += width, slope += width) {
    const Factors<T> value(at.basis + e, at.stride), derivative(at.basis + 5 * at.stride + e, at.stride);
    each_row(at, e, table, width, [&](int u, Vec<T> at_knot, const Vec<T>(&rows)[5]) {
      store(w + u, at_knot + value(rows));
      store(slope + u, derivative(rows));
    });
  }
}

template <class T>
void add_products(const T* a, const T* b, int rows, int width, T* to) {
  for (int e = 0; e < rows; ++e, a += width, b += width, to += kLanes<T>) {
    Vec<T> even = load(to), odd{};  // two sums, as one is a chain of additions
    int u = 0;
    for (; u + 2 * kLanes<T> <= width; u += 2 * kLanes<T>) {
      even += load(a + u) * load(b + u);
      odd += load(a + u + kLanes<T>) * load(b + u + kLanes<T>);
    }
    if (u < width) even += load(a + u) * load(b + u);
    store(to, even + odd);
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
  each_sums_of_lanes(partial, dim * count, [&](int i, int n, Vec<T> sums) { store(rows + i, load(rows + i, n) + sums, n); });
}

template <class T>
constexpr EngineKernels<T> kKernels{kLanes<T>, multiply<T>, hermite<T>, weights<T>,  weights_and_slopes<T>, add_products<T>,
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
