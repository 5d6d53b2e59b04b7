// The instruction sets the kernels are compiled for; the best one the processor has is chosen at run time.
#pragma once

#include <string>

namespace nf {

enum class Isa { plain, avx2, avx512 };

Isa current_isa();
std::string isa_name();

// For tests: use a lesser instruction set ("plain", "avx2", "avx512"); throws if the processor lacks it.
void set_isa(const std::string& name);

// Declares `template <class T> const Table<T>& name();` in the namespace of every instruction set, each defined by
// code compiled for it, and in nf the function of that name which returns the table now in use.
#if defined(NF_X86)
#define NF_KERNEL_TABLE(Table, name)                                  \
  namespace plain { template <class T> const Table<T>& name(); }      \
  namespace avx2 { template <class T> const Table<T>& name(); }       \
  namespace avx512 { template <class T> const Table<T>& name(); }     \
  template <class T>                                                  \
  const Table<T>& name() {                                            \
    if (current_isa() == Isa::avx512) return avx512::name<T>();       \
    if (current_isa() == Isa::avx2) return avx2::name<T>();           \
    return plain::name<T>();                                          \
  }
#else
#define NF_KERNEL_TABLE(Table, name)                                  \
  namespace plain { template <class T> const Table<T>& name(); }      \
  template <class T>                                                  \
  const Table<T>& name() { return plain::name<T>(); }
#endif

}  // namespace nf
