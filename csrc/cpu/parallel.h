// How kernels use the caller's threads.
#pragma once

#include <cstdint>
#include <functional>

namespace nf {

// parallel_for(n, grain, body): body(begin, end) over disjoint ranges, on the caller's thread pool.
using ParallelFor = std::function<void(int64_t, int64_t, const std::function<void(int64_t, int64_t)>&)>;

struct Threads {
  int count;
  ParallelFor parallel;
};

}  // namespace nf
