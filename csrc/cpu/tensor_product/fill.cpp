// Compiled once for each instruction set and element type, so that the build runs in parallel.
#include "cpu/tensor_product/couple.h"

namespace nf::NF_ISA {
template void fill<NF_TYPE>(ProductKernels<NF_TYPE>&);
}  // namespace nf::NF_ISA
