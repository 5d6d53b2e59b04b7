// Runs CUDA kernels on the CPU, so that sanitizers can watch them: the blocks of a grid one after the other, each thread
// of a block a fiber. A fiber runs until it waits for others, at a barrier or in a shuffle, so that threads interleave
// only there: this finds bad accesses, missing lanes and barriers that not all reach, but no data races.
//
// What is here has checks of its own in check.cpp: indices, __syncthreads, __syncwarp, shuffles and votes, atomics, shared
// memory, which begins as NaN in every block.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__ static
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaStream_t = void*;
constexpr int cudaSuccess = 0;
inline int cudaGetLastError() { return cudaSuccess; }
inline int cudaMemsetAsync(void* memory, int byte, size_t size, cudaStream_t) {
  std::memset(memory, byte, size);
  return cudaSuccess;
}

namespace simt {

constexpr int kWarp = 32;
constexpr size_t kStack = 256 * 1024;

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What the lanes of a mask tell each other; two sets, since a lane can be one exchange ahead of another that has not
// read yet. Each mask has its own: lanes that wait for all of them let some of them talk.
struct Exchange {
  struct Slot { alignas(16) unsigned char bytes[16]; } slots[2][kWarp];
  unsigned arrived = 0;
  uint64_t count = 0;
};
using Warp = std::map<unsigned, Exchange>;

// Stacks are used again: to get a new one from the system takes longer than most threads.
class Stack {
 public:
  Stack() {
    if (spare().empty()) {
      memory_.reset(new char[kStack]);
    } else {
      memory_ = std::move(spare().back());
      spare().pop_back();
#if defined(__SANITIZE_ADDRESS__)
      __asan_unpoison_memory_region(memory_.get(), kStack);  // of frames that were never left
#endif
    }
  }
  Stack(Stack&&) = default;
  ~Stack() {
    if (memory_) spare().push_back(std::move(memory_));
  }
  char* get() const { return memory_.get(); }

 private:
  static std::vector<std::unique_ptr<char[]>>& spare() {
    static std::vector<std::unique_ptr<char[]>> stacks;
    return stacks;
  }
  std::unique_ptr<char[]> memory_;
};

struct Fiber {
  ucontext_t context;
  Stack stack;
  dim3 index;
  int number = 0;
  bool done = false;
  std::function<bool()> ready;  // empty: it can run
};

class Block {
 public:
  Block(dim3 grid, dim3 threads, dim3 index, const std::function<void()>& body)
      : grid_(grid), threads_(threads), index_(index), body_(body), fibers_(size_t(threads.x) * threads.y * threads.z),
        warps_((fibers_.size() + kWarp - 1) / kWarp), alive_(int(fibers_.size())) {}

  void run() {
    Block* const outer = current();
    current() = this;
    for (size_t i = 0; i < fibers_.size(); ++i) start(int(i));
    while (alive_ > 0) {
      bool moved = false;
      for (Fiber& fiber : fibers_) {
        if (fiber.done || (fiber.ready && !fiber.ready())) continue;
        fiber.ready = nullptr;
        moved = true;
        enter(fiber);
        if (failed_) break;
      }
      if (failed_ || !moved) break;
    }
    current() = outer;
    if (failed_) std::rethrow_exception(failed_);
    if (alive_ > 0) throw Error("threads wait for others that do not come: " + waiting_);
  }

  // Waits until `ready`; `what` is said where it never is.
  void wait(const char* what, std::function<bool()> ready) {
    running_->ready = std::move(ready);
    waiting_ = what;
    leave(*running_);
  }

  void barrier() {
    const uint64_t now = barriers_;
    ++at_barrier_;
    pass_barrier();
    if (barriers_ == now) wait("__syncthreads", [this, now] { return barriers_ != now; });
  }

  // Tells the lanes of `mask` a value; the slots of all of them.
  const Exchange::Slot* exchange(unsigned mask, const void* value, size_t size) {
    const int lane = running_->number % kWarp;
    if (!(mask >> lane & 1)) throw Error("a lane that the mask leaves out takes part");
    Exchange& exchange = warps_[running_->number / kWarp][mask];
    const uint64_t now = exchange.count;
    Exchange::Slot* const slots = exchange.slots[now & 1];
    std::memcpy(slots[lane].bytes, value, size);
    exchange.arrived |= 1u << lane;
    if (exchange.arrived == mask) {
      exchange.arrived = 0;
      ++exchange.count;
    } else {
      wait("a shuffle, vote or __syncwarp", [&exchange, now] { return exchange.count != now; });
    }
    return slots;
  }

  void* shared(const void* name, size_t size) {
    std::unique_ptr<char[]>& memory = shared_[name];
    if (!memory) {
      memory.reset(new char[size]);
      std::memset(memory.get(), 0xff, size);
    }
    return memory.get();
  }

  int lane() const { return running_->number % kWarp; }
  dim3 grid() const { return grid_; }
  dim3 threads() const { return threads_; }
  dim3 index() const { return index_; }
  dim3 thread() const { return running_->index; }

  static Block*& current() {
    static Block* block = nullptr;
    return block;
  }

 private:
  void start(int number) {
    Fiber& fiber = fibers_[number];
    fiber.number = number;
    fiber.index = {number % threads_.x, number / threads_.x % threads_.y, number / (threads_.x * threads_.y)};
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Block::begin, 0);
  }

  static void begin() {
    Block& block = *current();
    block.arrived_on(nullptr);
    try {
      block.body_();
    } catch (...) {
      block.failed_ = std::current_exception();
    }
    block.running_->done = true;
    --block.alive_;
    block.pass_barrier();
    block.leave(*block.running_, true);
  }

  // Who has ended counts as arrived.
  void pass_barrier() {
    if (at_barrier_ == 0 || at_barrier_ < alive_) return;
    at_barrier_ = 0;
    ++barriers_;
  }

  // Switches of stacks, which AddressSanitizer has to be told of.
  void enter(Fiber& fiber) {
    running_ = &fiber;
#if defined(__SANITIZE_ADDRESS__)
    void* kept = nullptr;
    __sanitizer_start_switch_fiber(&kept, fiber.stack.get(), kStack);
#endif
    swapcontext(&scheduler_, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(kept, nullptr, nullptr);
#endif
  }
  void leave(Fiber& fiber, bool for_good = false) {
    [[maybe_unused]] void* kept = nullptr;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &kept, scheduler_stack_, scheduler_size_);
#else
    (void)for_good;
#endif
    swapcontext(&fiber.context, &scheduler_);
    arrived_on(kept);
  }
  void arrived_on([[maybe_unused]] void* kept) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(kept, &scheduler_stack_, &scheduler_size_);
#endif
  }

  const dim3 grid_, threads_, index_;
  const std::function<void()>& body_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::map<const void*, std::unique_ptr<char[]>> shared_;
  ucontext_t scheduler_;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_size_ = 0;
  Fiber* running_ = nullptr;
  int alive_, at_barrier_ = 0;
  uint64_t barriers_ = 0;
  std::string waiting_;
  std::exception_ptr failed_;
};

inline Block& block() { return *Block::current(); }

inline void launch(dim3 grid, dim3 threads, const std::function<void()>& body) {
  if (threads.x * threads.y * threads.z == 0 || threads.x * threads.y * threads.z > 1024)
    throw Error("a block has 1 to 1024 threads");
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) Block(grid, threads, {x, y, z}, body).run();
}

template <class T>
T shuffled(unsigned mask, T value, int from) {
  static_assert(sizeof(T) <= 16);
  const Exchange::Slot* const slots = block().exchange(mask, &value, sizeof(T));
  if (from < 0 || from >= kWarp) return value;
  if (!(mask >> from & 1)) throw Error("a shuffle reads a lane that the mask leaves out");
  T result;
  std::memcpy(&result, slots[from].bytes, sizeof(T));
  return result;
}

}  // namespace simt

#define NF_LAUNCH(KERNEL, BLOCKS, THREADS, STREAM, ...) \
  ((void)(STREAM), simt::launch(BLOCKS, THREADS, [&] { KERNEL(__VA_ARGS__); }))
// Shared memory of COUNT elements of T.
#define NF_SHARED(T, NAME, COUNT)                                                     \
  T* const NAME = [] {                                                                \
    static const char name = 0;                                                       \
    return static_cast<T*>(simt::block().shared(&name, sizeof(T) * size_t(COUNT)));   \
  }()

#define threadIdx (simt::block().thread())
#define blockIdx (simt::block().index())
#define blockDim (simt::block().threads())
#define gridDim (simt::block().grid())

inline void __syncthreads() { simt::block().barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { simt::shuffled(mask, 0, -1); }
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) { return simt::shuffled(mask, value, lane & (simt::kWarp - 1)); }
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other) { return simt::shuffled(mask, value, simt::block().lane() ^ other); }
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by) { return simt::shuffled(mask, value, simt::block().lane() + by); }
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by) { return simt::shuffled(mask, value, simt::block().lane() - by); }
inline unsigned __ballot_sync(unsigned mask, int vote) {
  const int mine = vote != 0;
  const simt::Exchange::Slot* const slots = simt::block().exchange(mask, &mine, sizeof mine);
  unsigned result = 0;
  for (int lane = 0; lane < simt::kWarp; ++lane)
    if (mask >> lane & 1) result |= unsigned(slots[lane].bytes[0] != 0) << lane;
  return result;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) == mask; }
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}
