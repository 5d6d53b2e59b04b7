// What formulas are written for: vectors of lanes on the CPU, a thread's numbers on the GPU. Vec<T> has the arithmetic of
// numbers, comparisons that `? :` takes, broadcast, sqrt, exp_minus, expm1_minus and log1p_small.
#pragma once

#if defined(__CUDACC__) || defined(NF_SIMT)
#include "cuda/lane.h"
#else
#include "cpu/math.h"
#include "unroll.h"
#endif
