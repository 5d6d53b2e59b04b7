// Linear maps between rows of nodes.
#pragma once

#include <vector>

#include "cpu/engine/layers.h"

namespace nf {

// Rows of features by node, `stride` apart.
template <class T>
struct Rows {
  const RowLayout& layout;
  T* data;
  int64_t stride;
};

struct Members {  // nodes: `count` of them by number, or 0 … count − 1 where there are no numbers
  const int* numbers;
  int count;
};

template <class T>
struct LinearWork {
  std::vector<const T*> from;
  std::vector<T*> to;
};

// to += from · matrix for the components of one segment each.
template <class T>
void multiply(const EngineKernels<T>& kernels, LinearWork<T>& work, const Matrix<T>& matrix, int inner,
              const Segment& a, const T* rows, int64_t stride, const Segment& b, const Rows<T>& to, Members members) {
  work.from.clear(), work.to.clear();
  for (int i = 0; i < members.count; ++i) {
    const int64_t node = members.numbers ? members.numbers[i] : i;
    for (int m = 0; m < a.components; ++m) {
      work.from.push_back(rows + node * stride + a.at + m * a.padded);
      work.to.push_back(to.data + node * to.stride + b.at + m * b.padded);
    }
  }
  kernels.multiply(int(work.from.size()), work.from.data(), inner, matrix.data.get(), matrix.width, work.to.data(), true);
}

// to += Σ maps · from, with matrices number `copy`.
template <class T>
void apply(const EngineKernels<T>& kernels, LinearWork<T>& work, const std::vector<PreparedMap<T>>& maps, int copy,
           const Rows<T>& from, const Rows<T>& to, Members members) {
  for (const PreparedMap<T>& map : maps) {
    const Segment &a = from.layout.segments[map.from], &b = to.layout.segments[map.to];
    multiply(kernels, work, map.forward[copy], a.inner, a, from.data, from.stride, b, to, members);
  }
}

// from += Σ mapsᵀ · to
template <class T>
void apply_reverse(const EngineKernels<T>& kernels, LinearWork<T>& work, const std::vector<PreparedMap<T>>& maps,
                   int copy, const Rows<T>& to, const Rows<T>& from, Members members) {
  for (const PreparedMap<T>& map : maps) {
    const Segment &a = from.layout.segments[map.from], &b = to.layout.segments[map.to];
    multiply(kernels, work, map.reverse[copy], b.mul, b, to.data, to.stride, a, from, members);
  }
}

}  // namespace nf
