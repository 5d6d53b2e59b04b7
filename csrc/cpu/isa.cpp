#include "isa.h"

#include <stdexcept>

namespace nf {
namespace {

constexpr const char* kNames[] = {"plain", "avx2", "avx512"};

Isa best() {
#if defined(NF_X86)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::plain;
}

Isa& chosen() {
  static Isa isa = best();
  return isa;
}

}  // namespace

Isa current_isa() { return chosen(); }

std::string isa_name() { return kNames[int(chosen())]; }

void set_isa(const std::string& name) {
  for (int i = 0; i <= int(best()); ++i)
    if (name == kNames[i]) {
      chosen() = Isa(i);
      return;
    }
  throw std::runtime_error("this processor cannot run instruction set '" + name + "'");
}

}  // namespace nf
