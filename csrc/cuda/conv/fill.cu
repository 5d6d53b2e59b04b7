// Compiled once for each group (NF_GROUP: its number) and element type, so that the build runs in parallel.
#include "cuda/conv/group_kernels.h"

namespace nf::cuda {
namespace {

using G = GroupAt<NF_GROUP>;
static_assert(Groups::size == NF_GROUPS, "CMakeLists.txt says how many groups there are");
static_assert(G::paths <= kMostPaths && G::most2 <= kMostDegree);

// Two channels a lane share what is made of the harmonics; one where that leaves lanes, or the device, without work. In
// float64 and with a tangent two do not fit the registers.
#if defined(NF_SIMT)
[[maybe_unused]] constexpr int64_t kManyWarps = 1;  // so that tests on a few nodes run both kinds
#else
[[maybe_unused]] constexpr int64_t kManyWarps = 4096;
#endif

int blocks(const Neighbours& graph) { return int((graph.nodes + kWarpsPerBlock - 1) / kWarpsPerBlock); }

template <class T>
bool takes_two(const Neighbours& graph, const GroupArgs<T>& args) {
  return sizeof(T) == 4 && args.mul > kLanes && graph.nodes * ((args.mul + 2 * kLanes - 1) / (2 * kLanes)) >= kManyWarps;
}

template <class T, int k, Mode mode>
int launch(const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Inputs<T>& in, T* out,
           void* stream) {
  const dim3 grid(blocks(graph), (args.mul + kLanes * k - 1) / (kLanes * k));
  NF_LAUNCH((gather<T, G, k, mode>), grid, kLanes * kWarpsPerBlock, stream, graph, args, widths, in, out);
  return int(cudaGetLastError());
}

template <class T, int k, Mode mode>
int launch(const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Inputs<T>& in,
           const Rows<T>& to, void* stream) {
  NF_LAUNCH((gradient<T, G, k, mode>), blocks(graph), kLanes * kWarpsPerBlock, stream, graph, args, widths, in, to);
  return int(cudaGetLastError());
}

// The kernel for these inputs: gather where `to` is where sums go, else gradient.
template <class T, class To>
int chosen(const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Inputs<T>& in, const To& to,
           void* stream) {
  if (in.along.x || in.along.y || in.along.w) return launch<T, 1, Mode::tangent>(graph, args, widths, in, to, stream);
  if constexpr (sizeof(T) == 4)
    if (takes_two(graph, args))
      return in.formed.table ? launch<T, 2, Mode::table>(graph, args, widths, in, to, stream)
                             : launch<T, 2, Mode::plain>(graph, args, widths, in, to, stream);
  return in.formed.table ? launch<T, 1, Mode::table>(graph, args, widths, in, to, stream)
                         : launch<T, 1, Mode::plain>(graph, args, widths, in, to, stream);
}

}  // namespace

template <>
ConvKernels<NF_TYPE> conv_kernels<NF_TYPE, NF_GROUP>() {
  using T = NF_TYPE;
  return {G::l1, G::index, G::paths,
          [](const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Inputs<T>& in, T* out,
             void* stream) { return chosen<T>(graph, args, widths, in, out, stream); },
          [](const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Inputs<T>& in,
             const Rows<T>& to, void* stream) { return chosen<T>(graph, args, widths, in, to, stream); }};
}

}  // namespace nf::cuda
