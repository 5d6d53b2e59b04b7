#pragma once

#include <algorithm>

#include "cpu/scratch.h"

namespace nf {

// [inner][width], rows of whole vectors
template <class T>
struct Matrix {
  int inner, width;
  Scratch<T> data;

  Matrix(int inner, int width) : inner(inner), width(width), data(int64_t(inner) * width) {
    std::fill_n(data.get(), int64_t(inner) * width, T(0));
  }
  T& at(int row, int column) { return data.get()[int64_t(row) * width + column]; }
};

}  // namespace nf
