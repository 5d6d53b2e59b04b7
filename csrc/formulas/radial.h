// The radial basis of an edge and its first two derivatives by the length.
#pragma once

#include <cmath>
#include <cstdint>

#include "device.h"

namespace nf {

// f_n(x) = sin(π root_n x) e(x), e(x) = factor/(π x) · (1 + x^p (a + x (b + x c))) below x = 1, else 0: Bessel functions
// and the polynomial envelope of nequip_fast/nn/radial.py.
struct RadialBasis {
  static constexpr double kPi = 3.14159265358979323846;

  const double* roots;
  int64_t size;
  double p, factor;
  bool turned;  // the roots are 1, 2, … n: each angle is the one before, turned by the first

  NF_HOST_DEVICE RadialBasis(const double* roots, int64_t size, double p, double factor)
      : roots(roots), size(size), p(p), factor(factor), turned(true) {
    for (int64_t n = 0; n < size; ++n) turned &= roots[n] == double(n + 1);
  }

  // e and its first two derivatives.
  struct Envelope {
    double value, slope, curvature;
  };

  NF_HOST_DEVICE Envelope envelope(double x) const {
    if (!(x < 1)) return {x < 1 || x >= 1 ? 0. : x, 0, 0};  // what is no number stays none
    const double a = -(p + 1) * (p + 2) / 2, b = p * (p + 2), c = -p * (p + 1) / 2;
    const double power = std::pow(x, p - 2), f = factor / (kPi * x);
    const double u = 1 + power * x * x * (a + x * (b + x * c));
    const double du = power * x * (a * p + x * (b * (p + 1) + x * c * (p + 2)));
    const double ddu = power * (a * p * (p - 1) + x * (b * (p + 1) * p + x * c * (p + 2) * (p + 1)));
    return {f * u, f * (du - u / x), f * (ddu - 2 * (du - u / x) / x)};
  }

  // body(n, k, sin(k x), cos(k x)) for each root, k = π root.
  template <class Body>
  NF_HOST_DEVICE void each(double x, const Body& body) const {
    if (!turned) {
      for (int64_t n = 0; n < size; ++n) {
        const double k = roots[n] * kPi;
        body(n, k, std::sin(x * k), std::cos(x * k));
      }
      return;
    }
    const double sine = std::sin(x * kPi), cosine = std::cos(x * kPi);
    double s = sine, c = cosine;
    for (int64_t n = 0; n < size; ++n) {
      body(n, roots[n] * kPi, s, c);
      const double next = s * cosine + c * sine;
      c = c * cosine - s * sine, s = next;
    }
  }

  template <class T>
  NF_HOST_DEVICE void values(double x, T* out) const {
    const Envelope e = envelope(x);
    each(x, [&](int64_t n, double, double sine, double) { out[n] = T(sine * e.value); });
  }

  // Σ g_n f_n'(x)
  template <class T>
  NF_HOST_DEVICE double vjp(double x, const T* g) const {
    const Envelope e = envelope(x);
    double sum = 0;
    each(x, [&](int64_t n, double k, double sine, double cosine) {
      sum += double(g[n]) * (k * cosine * e.value + sine * e.slope);
    });
    return sum;
  }

  // The derivatives of c · vjp by x, returned, and by g.
  template <class T>
  NF_HOST_DEVICE double vjp_grad(double x, const T* g, double c, T* dg) const {
    const Envelope e = envelope(x);
    double sum = 0;
    each(x, [&](int64_t n, double k, double sine, double cosine) {
      dg[n] = T(c * (k * cosine * e.value + sine * e.slope));
      sum += double(g[n]) * (sine * (e.curvature - k * k * e.value) + 2 * k * cosine * e.slope);
    });
    return c * sum;
  }
};

}  // namespace nf
