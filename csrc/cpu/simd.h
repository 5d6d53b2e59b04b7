// Vectors as wide as the instruction set this file is compiled for: NF_ISA is avx512, avx2 or plain.
//
// Everything lives in namespace nf::NF_ISA, so that the linker can never hand a function compiled for a newer
// instruction set to older code.
#pragma once

#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace nf::NF_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <class T>
inline constexpr int kLanes = kVectorBytes / int(sizeof(T));

// n rounded up to whole vectors
template <class T>
constexpr int padded(int n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The same in all lanes. x − 0 is x for every x, so that nothing is computed; 0 + x is not, for x = −0.
template <class T>
inline Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}

// The first n lanes; the rest are zero on load and untouched on store.
#if defined(__AVX512F__)
inline Vec<float> load_some(const float* p, int n) {
  return (Vec<float>)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
}
inline Vec<double> load_some(const double* p, int n) {
  return (Vec<double>)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
}
inline void store_some(float* p, Vec<float> v, int n) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
}
inline void store_some(double* p, Vec<double> v, int n) {
  _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
}
#else
template <class T>
inline Vec<T> load_some(const T* p, int n) {
  Vec<T> v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <class T>
inline void store_some(T* p, Vec<T> v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
#endif

// Store to an aligned address without reading the line into the caches first; followed by end_stream before other
// threads read it. What is too large to stay there anyhow is written in half the time.
template <class T>
inline void stream(T* p, Vec<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#else
  store(p, v);
#endif
}
inline void end_stream() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

template <class T>
inline Vec<T> load(const T* p, int n) {
  return n >= kLanes<T> ? load(p) : load_some(p, n);
}
template <class T>
inline void store(T* p, Vec<T> v, int n) {
  n >= kLanes<T> ? store(p, v) : store_some(p, v, n);
}

// The same where it is known at compile time whether the vector is whole.
template <bool whole, class T>
inline Vec<T> load(const T* p, int n) {
  return whole ? load(p) : load_some(p, n);
}
template <bool whole, class T>
inline void store(T* p, Vec<T> v, int n) {
  whole ? store(p, v) : store_some(p, v, n);
}

template <class T>
inline T sum_lanes(Vec<T> v) {
  T part[kLanes<T>];
  store(part, v);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
}

}  // namespace nf::NF_ISA
