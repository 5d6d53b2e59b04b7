// What simt.h itself promises. Prints what failed.
#include <cstdio>
#include <string>
#include <vector>

#include "cuda/launch.h"

namespace {

int failures = 0;

void check(bool holds, const std::string& what) {
  if (!holds) std::printf("failed: %s\n", what.c_str()), ++failures;
}

template <class Body>
void check_throws(const Body& body, const std::string& message) {
  try {
    body();
  } catch (const simt::Error& error) {
    check(std::string(error.what()).find(message) != std::string::npos, message + ", not " + error.what());
    return;
  }
  check(false, "no error: " + message);
}

// --- simt.h ---

__global__ void number_threads(int* out) {
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] += int(1000 * block + thread);
}

// Each block's values the other way round, through shared memory.
__global__ void reverse(const int* in, int* out) {
  NF_SHARED(int, memory, 96);
  const int first = blockIdx.x * blockDim.x, thread = threadIdx.x;
  check(memory[thread] == -1, "shared memory begins as NaN in every block");
  __syncthreads();
  memory[thread] = in[first + thread];
  __syncthreads();
  out[first + thread] = memory[blockDim.x - 1 - thread];
}

__global__ void talk(double* sums, int* others, unsigned* votes) {
  const int thread = threadIdx.x;
  double sum = thread;
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  sums[thread] = sum;
  others[3 * thread] = __shfl_sync(~0u, thread, 5);
  others[3 * thread + 1] = __shfl_down_sync(~0u, thread, 3);
  others[3 * thread + 2] = __shfl_up_sync(~0u, thread, 1);
  votes[thread] = __ballot_sync(~0u, thread % 3 == 0);
  if (thread % 2 == 0) votes[thread] += 2 * (__any_sync(0x55555555u, thread == 4) && !__all_sync(0x55555555u, thread == 4));
  __syncwarp();
}

__global__ void count(int* counts, const int* keys, int size) {
  for (int i = threadIdx.x; i < size; i += blockDim.x) atomicAdd(counts + keys[i], 1);
}

__global__ void some_return_early(int* out) {
  if (threadIdx.x % 2) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void barrier_for_some(int wrong) {
  if (int(threadIdx.x) != wrong)
    __syncthreads();
  else
    __shfl_sync(~0u, 0, 0);
}

__global__ void masks(unsigned of_even, unsigned of_odd) { __shfl_sync(threadIdx.x % 2 ? of_odd : of_even, 1, 0); }

void check_simt() {
  std::vector<int> numbers(6 * 30, 0);
  NF_LAUNCH(number_threads, dim3(3, 2), dim3(5, 3, 2), nullptr, numbers.data());
  for (int block = 0; block < 6; ++block)
    for (int thread = 0; thread < 30; ++thread) check(numbers[30 * block + thread] == 1000 * block + thread, "indices");

  std::vector<int> in(4 * 96), out(4 * 96, -1);
  for (size_t i = 0; i < in.size(); ++i) in[i] = int(7 * i);
  NF_LAUNCH(reverse, 4, 96, nullptr, in.data(), out.data());
  for (int i = 0; i < 4 * 96; ++i) check(out[i] == in[i / 96 * 96 + 95 - i % 96], "barriers and shared memory");

  std::vector<double> sums(64);
  std::vector<int> others(3 * 64);
  std::vector<unsigned> votes(64);
  NF_LAUNCH(talk, 1, 64, nullptr, sums.data(), others.data(), votes.data());
  for (int i = 0; i < 64; ++i) {
    const int first = i / 32 * 32, lane = i % 32;
    unsigned ballot = 0;
    for (int k = 0; k < 32; ++k) ballot |= unsigned((first + k) % 3 == 0) << k;
    if (i % 2 == 0 && first == 0) ballot += 2;
    check(sums[i] == 32 * first + 496, "shuffles across");
    check(others[3 * i] == first + 5, "shuffles from one lane");
    check(others[3 * i + 1] == (lane + 3 < 32 ? i + 3 : i), "shuffles down");
    check(others[3 * i + 2] == (lane ? i - 1 : i), "shuffles up");
    check(votes[i] == ballot, "votes");
  }

  std::vector<int> counts(4, 0), keys(1000);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = int(i % 4);
  NF_LAUNCH(count, 1, 70, nullptr, counts.data(), keys.data(), 1000);
  for (const int n : counts) check(n == 250, "atomics");

  std::vector<int> ones(50, 0);
  NF_LAUNCH(some_return_early, 1, 50, nullptr, ones.data());
  for (int i = 0; i < 50; ++i) check(ones[i] == (i % 2 == 0), "threads that have ended do not hold up a barrier");

  check_throws([] { NF_LAUNCH(barrier_for_some, 1, 32, nullptr, 3); }, "do not come");
  check_throws([] { NF_LAUNCH(masks, 1, 32, nullptr, 0x55555555u, ~0u); }, "do not come");
  check_throws([] { NF_LAUNCH(masks, 1, 32, nullptr, 0x55555555u, 0x55555555u); }, "leaves out");
  check_throws([] { NF_LAUNCH(masks, 1, 2000, nullptr, ~0u, ~0u); }, "1024");
}

// --- mistakes that the sanitizers must find, or a run without findings says nothing ---

__global__ void overrun(const int* in, int* out, int size) {
  for (int i = threadIdx.x; i <= size; i += blockDim.x) out[threadIdx.x] += in[i];
}

__global__ void shift(int* out) { out[threadIdx.x] = 1 << (threadIdx.x + 1); }

int seeded(const std::string& which) {
  std::vector<int> in(64, 1), out(32, 0);
  if (which == "overrun") NF_LAUNCH(overrun, 1, 32, nullptr, in.data(), out.data(), 64);
  if (which == "shift") NF_LAUNCH(shift, 1, 32, nullptr, out.data());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) return seeded(argv[1]);
  check_simt();
  std::printf(failures ? "%d checks failed\n" : "all checks hold\n", failures);
  return failures != 0;
}
