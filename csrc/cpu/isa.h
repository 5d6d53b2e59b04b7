// The instruction sets the kernels are compiled for; the best one the processor has is chosen at run time.
#pragma once

#include <string>

namespace nf {

enum class Isa { plain, avx2, avx512 };

Isa current_isa();
std::string isa_name();

// For tests: use a lesser instruction set ("plain", "avx2", "avx512"); throws if the processor lacks it.
void set_isa(const std::string& name);

}  // namespace nf
