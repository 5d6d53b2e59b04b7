// What the checks of the CPU kernels share. They run every kernel without torch, on small and awkward problems whose
// arrays end where readable memory ends, so that AddressSanitizer, UndefinedBehaviorSanitizer, ThreadSanitizer, or in
// a plain build the processor itself, stop the program at the first access beyond them.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "cpu/parallel.h"

namespace nf::check {

#if defined(__SANITIZE_ADDRESS__)

// Every byte around a heap block is watched already.
inline void* exact_block(size_t bytes) { return ::operator new(bytes); }
inline void free_block(void* p, size_t) { ::operator delete(p); }

#else

inline size_t page() { return size_t(sysconf(_SC_PAGESIZE)); }
inline size_t in_pages(size_t bytes) { return (bytes + page() - 1) / page() * page(); }

// Ends at a page that may not be touched.
inline void* exact_block(size_t bytes) {
  const size_t room = in_pages(bytes);
  char* pages =
      static_cast<char*>(mmap(nullptr, room + page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (pages == MAP_FAILED || mprotect(pages + room, page(), PROT_NONE) != 0) std::abort();
  return pages + room - bytes;
}
inline void free_block(void* p, size_t bytes) {
  const size_t room = in_pages(bytes);
  munmap(static_cast<char*>(p) + bytes - room, room + page());
}

#endif

// An array with not one readable element more than it has.
template <class T>
class Exact {
 public:
  explicit Exact(int64_t count)
      : count_(count), data_(static_cast<T*>(exact_block(sizeof(T) * count)), Free{sizeof(T) * size_t(count)}) {}
  Exact(const std::vector<T>& values) : Exact(int64_t(values.size())) { std::copy(values.begin(), values.end(), data()); }

  T* data() const { return data_.get(); }
  int64_t size() const { return count_; }
  T* begin() const { return data(); }
  T* end() const { return data() + count_; }

 private:
  struct Free {
    size_t bytes;
    void operator()(T* p) const { free_block(p, bytes); }
  };
  int64_t count_;
  std::unique_ptr<T, Free> data_;
};

// The same numbers in every run.
template <class T>
Exact<T> random(int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  Exact<T> values(count);
  for (T& value : values) value = T(normal(engine));
  return values;
}

// Room for results; whatever a kernel leaves unwritten stays NaN and is found.
template <class T>
Exact<T> unwritten(int64_t count) {
  Exact<T> values(count);
  std::fill(values.begin(), values.end(), std::numeric_limits<T>::quiet_NaN());
  return values;
}

// All that a check computed, to be compared between instruction sets and numbers of threads.
class Results {
 public:
  template <class T>
  void add(const Exact<T>& values) {
    values_.insert(values_.end(), values.begin(), values.end());
  }
  const std::vector<double>& values() const { return values_; }

 private:
  std::vector<double> values_;
};

// One a file: every problem of an operator, in single and double precision.
template <class T>
Results convolution(const ParallelFor&);
template <class T>
Results gating(const ParallelFor&);
template <class T>
Results harmonics(const ParallelFor&);
template <class T>
Results inference(const ParallelFor&);
template <class T>
Results perceptrons(const ParallelFor&);
template <class T>
Results product(const ParallelFor&);
template <class T>
Results segments(const ParallelFor&);

}  // namespace nf::check
