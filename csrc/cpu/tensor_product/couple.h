// The coupling of two operands by the Clebsch-Gordan coefficients, its sparsity unrolled at compile time.
//
// One kernel serves the product and its derivatives: with the degrees permuted it yields any of x, y and out.
#pragma once

#include "cg/path.h"
#include "cpu/tensor_product/kernels.h"
#include "cpu/simd.h"
#include "unroll.h"

namespace nf::NF_ISA {

template <class T>
[[gnu::always_inline]] inline Vec<T> weight(const Run<T>& run, int64_t i, int64_t sample) {
  if (!run.w) return broadcast<T>(run.coefficient);
  const T* w = run.w + i * run.step_w;
  return run.w_per_sample ? load(w + sample) * run.coefficient : broadcast<T>(*w * run.coefficient);
}

// m[entry] = Σ_mb C(ma, mb, mt) b[mb]
template <class T, class P>
[[gnu::always_inline]] inline void matrix(T (*m)[kLanes<T>], const T* b, int64_t stride) {
  unroll<P::entries>([&](auto entry) {
    constexpr int first = P::at.first[entry.value], count = P::at.first[entry.value + 1] - first;
    Vec<T> sum{};
    unroll<count>([&](auto t) {
      constexpr int term = first + t.value;
      sum += T(P::Table::value[term]) * load(b + P::Table::m2[term] * stride);
    });
    store(m[entry], sum);
  });
}

template <class T, int la, int lb, int lt>
void couple(const Run<T>& run) {
  using P = Pattern<la, lb, lt>;
  using V = Vec<T>;
  const int64_t stride = int64_t(run.vectors) * kLanes<T>;
  alignas(64) T m[P::entries][kLanes<T>];
  for (int64_t sample = 0; sample < stride; sample += kLanes<T>) {
    V sum[P::n3]{};
    for (int64_t i = 0; i < run.count; ++i) {
      if (i == 0 || run.step_b != 0) matrix<T, P>(m, run.b + i * run.step_b + sample, stride);
      const T* a = run.a + i * run.step_a + sample;
      V as[P::n1], product[P::n3]{};
      unroll<P::n1>([&](auto ma) { as[ma] = load(a + ma * stride); });
      unroll<P::entries>([&](auto k) { product[P::at.m3[k.value]] += load(m[k]) * as[P::at.m1[k.value]]; });
      const V w = weight(run, i, sample);
      if (run.step_t == 0) {
        unroll<P::n3>([&](auto mt) { sum[mt] += w * product[mt]; });
      } else {
        T* t = run.t + i * run.step_t + sample;
        if (run.add)
          unroll<P::n3>([&](auto mt) { store(t + mt * stride, load(t + mt * stride) + w * product[mt]); });
        else
          unroll<P::n3>([&](auto mt) { store(t + mt * stride, w * product[mt]); });
      }
    }
    if (run.step_t == 0)
      unroll<P::n3>([&](auto mt) {
        T* t = run.t + mt * stride + sample;
        store(t, run.add ? load(t) + sum[mt] : sum[mt]);
      });
  }
}

// The same for any degrees, from the table computed at run time.
template <class T>
void couple_any(const Run<T>& run) {
  const Coupling& c = *run.coupling;
  const int64_t stride = int64_t(run.vectors) * kLanes<T>;
  const auto matrix_any = [&](const T* b) {
    T* m = run.scratch;
    for (const Coupling::Entry& entry : c.entries) {
      Vec<T> sum{};
      for (int t = entry.first; t < entry.end; ++t) sum += T(c.terms[t].value) * load(b + c.terms[t].m2 * stride);
      store(m, sum);
      m += kLanes<T>;
    }
  };
  for (int64_t sample = 0; sample < stride; sample += kLanes<T>) {
    if (run.step_t == 0 && !run.add)
      for (int mt = 0; mt <= 2 * c.l3; ++mt) store(run.t + mt * stride + sample, Vec<T>{});
    for (int64_t i = 0; i < run.count; ++i) {
      if (i == 0 || run.step_b != 0) matrix_any(run.b + i * run.step_b + sample);
      const T* a = run.a + i * run.step_a + sample;
      T* t = run.t + i * run.step_t + sample;
      if (run.step_t != 0 && !run.add)
        for (int mt = 0; mt <= 2 * c.l3; ++mt) store(t + mt * stride, Vec<T>{});
      const Vec<T> w = weight(run, i, sample);
      const T* m = run.scratch;
      for (const Coupling::Entry& entry : c.entries) {
        T* sum = t + entry.m3 * stride;
        store(sum, load(sum) + w * load(m) * load(a + entry.m1 * stride));
        m += kLanes<T>;
      }
    }
  }
}

// Enter the kernels of all degrees.
template <class T>
void fill(ProductKernels<T>& kernels) {
  unroll<kMaxL + 1>([&](auto la) {
    unroll<kMaxL + 1>([&](auto lb) {
      unroll<kMaxL + 1>([&](auto lt) {
        if constexpr (Cg<la.value, lb.value, lt.value>::count > 0)
          kernels.couple[la][lb][lt] = couple<T, la.value, lb.value, lt.value>;
      });
    });
  });
  kernels.couple_any = couple_any<T>;
}

}  // namespace nf::NF_ISA
