// Compiled once for each instruction set, element type and l1, so that the build runs in parallel.
#include "cpu/conv/path_kernels.h"

namespace nf::NF_ISA {
template void fill<NF_TYPE, NF_L1>(ConvKernels<NF_TYPE>&);
}  // namespace nf::NF_ISA
