// What this machine can do at best: fused multiply-adds from registers, and reading and writing arrays of one size.
// Compiled with -O3 -march=native at run time by bench/roofline.py, which calls the three functions at the end.
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int kBytes = 64, kChains = 16;  // independent chains: more than latency × pipes of current processors

template <class T>
struct Wide {
  typedef T vector __attribute__((vector_size(kBytes)));
};
template <class T>
using Vec = typename Wide<T>::vector;

// Seconds from the moment all threads start to the moment the last ends.
template <class Work>
double timed(int threads, const Work& work) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point start;
  std::barrier begin(threads, [&]() noexcept { start = Clock::now(); });
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      begin.arrive_and_wait();
      work(t);
    });
  for (auto& thread : pool) thread.join();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <class V>
void keep(V& value) {
  asm volatile("" : "+m"(value));
}

template <class T>
double fma_per_second(int threads, int64_t steps) {
  const double seconds = timed(threads, [&](int) {
    Vec<T> chain[kChains], a = Vec<T>{} + T(0.999), b = Vec<T>{} + T(0.001);
    keep(a), keep(b);
    for (auto& c : chain) c = Vec<T>{};
    for (int64_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
      for (auto& c : chain) c = c * a + b;
    for (auto& c : chain) keep(c);
  });
  return threads * double(steps) * kChains * (kBytes / sizeof(T)) / seconds;
}

// Bytes a second over `bytes` in all, split among the threads and walked `times` times; every thread touches its
// part first, so that it is where that thread would have it.
template <class Walk>
double bytes_per_second(int threads, int64_t bytes, int64_t times, const Walk& walk) {
  using V = Vec<float>;
  const int64_t part = std::max<int64_t>(bytes / threads / kBytes / 8 * 8, 8);
  std::vector<V*> parts(threads);
  timed(threads, [&](int t) {
    parts[t] = static_cast<V*>(std::aligned_alloc(kBytes, part * kBytes));
    std::fill_n(parts[t], part, V{});
  });
  const double seconds = timed(threads, [&](int t) {
    for (int64_t i = 0; i < times; ++i) walk(parts[t], part);
  });
  for (V* p : parts) std::free(p);
  return double(threads) * part * kBytes * times / seconds;
}

}  // namespace

extern "C" double fma_rate(int is_double, int threads, int64_t steps) {
  return is_double ? fma_per_second<double>(threads, steps) : fma_per_second<float>(threads, steps);
}

extern "C" double read_rate(int threads, int64_t bytes, int64_t times) {
  return bytes_per_second(threads, bytes, times, [](const Vec<float>* p, int64_t n) {
    Vec<float> sum[8]{};
    for (int64_t i = 0; i < n; i += 8)
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) sum[k] += p[i + k];
    for (auto& s : sum) keep(s);
  });
}

extern "C" double write_rate(int threads, int64_t bytes, int64_t times) {
  return bytes_per_second(threads, bytes, times, [](Vec<float>* p, int64_t n) {
    std::memset(p, 1, n * kBytes);  // the fastest way to write there is: large ones bypass the caches
    asm volatile("" ::"r"(p) : "memory");
  });
}
