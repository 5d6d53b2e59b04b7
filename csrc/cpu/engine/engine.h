// Energy, forces and strain derivative of structures by a compiled model: forward and reverse passes written out.
#pragma once

#include <cstdint>
#include <memory>

#include "cpu/engine/program.h"
#include "cpu/parallel.h"

namespace nf {

// Atoms of one or more structures, and pairs among which all within the cutoff are; those beyond are passed over.
struct EngineInput {
  int64_t atoms, structures;
  const double* positions;   // [atoms, 3]
  const int64_t* types;      // [atoms]
  const int64_t* structure;  // [atoms]
  const double* cells;       // [structures, 3, 3], rows are lattice vectors
  const int64_t* ptr;        // pairs of atom i: ptr[i] … ptr[i + 1] − 1
  const int32_t* neighbour;  // [pairs]
  const int32_t* shift;      // [pairs, 3] in lattice vectors
};

struct EngineOutput {
  double* energies;  // [atoms]
  double* forces;    // [atoms, 3]; null without derivatives, or atoms
  double* strain;    // [structures, 3, 3]: dE/dstrain; null: no derivatives
};

class Engine {
 public:
  virtual ~Engine() = default;
  // Throws std::runtime_error where positions are not finite, atoms coincide, or an index is out of range.
  virtual void evaluate(const EngineInput&, const EngineOutput&, int threads, const ParallelFor&) = 0;

  template <class T>
  static std::unique_ptr<Engine> make(const Program&);
};

}  // namespace nf
