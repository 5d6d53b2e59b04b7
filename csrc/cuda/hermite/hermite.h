// Places in radial tables on the GPU, on plain pointers into its memory; see nequip_fast/engine/hermite.py.
#pragma once

#include <cstdint>

namespace nf::cuda {

// Of x [edges] between `count` rising knots: first [edges], where the six rows of its interval begin; values and slopes
// [edges, 6], what they are multiplied with. `stream` is a cudaStream_t. Returns a cudaError_t as an int.
template <class T>
int hermite(const double* x, const double* knots, int64_t count, int64_t* first, T* values, T* slopes, int64_t edges,
            void* stream);

}  // namespace nf::cuda
