// check_kernels: run every check with every instruction set of this processor, first in one piece, then on several
// threads. All must agree, and leave no result unwritten.
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>

#include "check.h"
#include "cpu/isa.h"

namespace nf::check {
namespace {

constexpr int kThreads = 4;

const ParallelFor kInOnePiece = [](int64_t n, int64_t, const auto& body) {
  if (n > 0) body(0, n);
};

// Pieces as small as can be, dealt out in turn, whatever grain is asked for: neighbours are on different threads.
const ParallelFor kOnThreads = [](int64_t n, int64_t, const auto& body) {
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int64_t i = t; i < n; i += kThreads) body(i, i + 1);
    });
  for (std::thread& thread : threads) thread.join();
};

double tolerance(float) { return 1e-4; }
double tolerance(double) { return 1e-11; }

// Number of results that differ or were never written, said on the terminal.
int differences(const std::vector<double>& values, const std::vector<double>& expected, double tolerance,
                const std::string& what) {
  if (values.size() != expected.size()) {
    std::printf("%s: %zu results, not %zu\n", what.c_str(), values.size(), expected.size());
    return 1;
  }
  double largest = 0;
  int unwritten = 0, different = 0;
  for (double v : expected) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < values.size(); ++i) {
    unwritten += std::isnan(values[i]);
    different += std::abs(values[i] - expected[i]) > tolerance * largest;
  }
  if (unwritten + different)
    std::printf("%s: of %zu results %d are unwritten, %d differ\n", what.c_str(), values.size(), unwritten, different);
  return unwritten + different;
}

template <class T>
int run(const char* name, Results (*check)(const ParallelFor&), const std::vector<std::string>& isas) {
  const std::string type = sizeof(T) == 4 ? " float" : " double";
  std::vector<double> expected;
  int failures = 0;
  for (const std::string& isa : isas) {
    set_isa(isa);
    const std::string what = name + type + ' ' + isa;
    std::printf("%s: ", what.c_str());
    std::fflush(stdout);  // a sanitizer may end the program here
    const std::vector<double> whole = check(kInOnePiece).values(), pieces = check(kOnThreads).values();
    if (expected.empty()) expected = whole;
    failures += differences(whole, expected, tolerance(T()), what);
    failures += differences(pieces, whole, 0, what + ", threads");
    std::printf("%zu results\n", whole.size());
  }
  return failures;
}

}  // namespace
}  // namespace nf::check

int main() {
  using namespace nf::check;
  std::vector<std::string> isas;
  for (const char* isa : {"plain", "avx2", "avx512"}) try {
      nf::set_isa(isa);
      isas.push_back(isa);
    } catch (const std::exception&) {
      std::printf("%s: not on this processor or not in this build\n", isa);
    }
  int failures = 0;
  const auto both = [&](const char* name, auto* in_float, auto* in_double) {
    failures += run<float>(name, in_float, isas) + run<double>(name, in_double, isas);
  };
  both("conv", convolution<float>, convolution<double>);
  both("engine", inference<float>, inference<double>);
  both("gate", gating<float>, gating<double>);
  both("mlp", perceptrons<float>, perceptrons<double>);
  both("spherical_harmonics", harmonics<float>, harmonics<double>);
  both("tensor_product", product<float>, product<double>);
  both("segment_sum", segments<float>, segments<double>);
  return failures ? 1 : 0;
}
