// One thread is one lane: on the GPU the vectors of csrc/formulas are numbers, and their functions those of CUDA.
#pragma once

#include <cmath>

#include "unroll.h"

namespace nf::NF_ISA {

template <class T>
using Vec = T;

template <class T>
NF_INLINE T broadcast(T x) {
  return x;
}
template <class T>
NF_INLINE T sqrt(T x) {
  return std::sqrt(x);
}
template <class T>
NF_INLINE T exp_minus(T t) {
  return std::exp(-t);
}
template <class T>
NF_INLINE T expm1_minus(T t) {
  return std::expm1(-t);
}
template <class T>
NF_INLINE T log1p_small(T e) {
  return std::log1p(e);
}

}  // namespace nf::NF_ISA
