// Compiled once for each group (NF_GROUP: its number) and element type, so that the build runs in parallel.
#include "cuda/conv/group_kernels.h"

namespace nf::cuda {
namespace {

using G = GroupAt<NF_GROUP>;
static_assert(Groups::size == NF_GROUPS, "CMakeLists.txt says how many groups there are");
static_assert(G::paths <= kMostPaths && G::most2 <= kMostDegree);

// Two channels a lane share what is made of the harmonics; one where that leaves lanes, or the device, without work. In
// float64 and with a tangent two do not fit the registers.
[[maybe_unused]] constexpr int64_t kManyWarps = 4096;

int blocks(const Neighbours& graph) { return int((graph.nodes + kWarpsPerBlock - 1) / kWarpsPerBlock); }

template <class T>
bool takes_two(const Neighbours& graph, const GroupArgs<T>& args) {
  return sizeof(T) == 4 && args.mul > kLanes && graph.nodes * (args.mul / (2 * kLanes)) >= kManyWarps;
}

template <class T, int k, bool tangent>
int launch_gather(const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Rows<const T>& at,
                  const Rows<const T>& along, T* out, void* stream) {
  const dim3 grid(blocks(graph), (args.mul + kLanes * k - 1) / (kLanes * k));
  NF_LAUNCH((gather<T, G, k, tangent>), grid, kLanes * kWarpsPerBlock, stream, graph, args, widths, at, along, out);
  return int(cudaGetLastError());
}

template <class T, int k, bool tangent>
int launch_gradient(const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Rows<const T>& at,
                    const Rows<const T>& along, const T* g, const Rows<T>& to, void* stream) {
  NF_LAUNCH((gradient<T, G, k, tangent>), blocks(graph), kLanes * kWarpsPerBlock, stream, graph, args, widths, at, along,
            g, to);
  return int(cudaGetLastError());
}

template <class T>
bool any(const Rows<const T>& rows) {
  return rows.x || rows.y || rows.w;
}

}  // namespace

template <>
ConvKernels<NF_TYPE> conv_kernels<NF_TYPE, NF_GROUP>() {
  using T = NF_TYPE;
  return {G::l1, G::index, G::paths,
          [](const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Rows<const T>& at,
             const Rows<const T>& along, T* out, void* stream) {
            if (any(along)) return launch_gather<T, 1, true>(graph, args, widths, at, along, out, stream);
            if constexpr (sizeof(T) == 4)
              if (takes_two(graph, args)) return launch_gather<T, 2, false>(graph, args, widths, at, along, out, stream);
            return launch_gather<T, 1, false>(graph, args, widths, at, along, out, stream);
          },
          [](const Neighbours& graph, const GroupArgs<T>& args, const Widths& widths, const Rows<const T>& at,
             const Rows<const T>& along, const T* g, const Rows<T>& to, void* stream) {
            if (any(along)) return launch_gradient<T, 1, true>(graph, args, widths, at, along, g, to, stream);
            if constexpr (sizeof(T) == 4)
              if (takes_two(graph, args)) return launch_gradient<T, 2, false>(graph, args, widths, at, along, g, to, stream);
            return launch_gradient<T, 1, false>(graph, args, widths, at, along, g, to, stream);
          }};
}

}  // namespace nf::cuda
