// The engine: from torch tensors to Engine, and the engines that Python holds by number.
#include <torch/csrc/stable/library.h>

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "cpu/engine/engine.h"
#include "tensors.h"

namespace nf {
namespace {

std::mutex mutex;
std::map<int64_t, std::shared_ptr<Engine>> engines;

std::shared_ptr<Engine> engine_of(int64_t number) {
  const std::lock_guard lock(mutex);
  const auto found = engines.find(number);
  STD_TORCH_CHECK(found != engines.end(), "engine: there is none of number ", number);
  return found->second;
}

int64_t engine_create(Tensor weights, std::vector<int64_t> integers, bool is_double) {
  STD_TORCH_CHECK(weights.dim() == 1 && weights.scalar_type() == ScalarType::Double && weights.is_cpu(),
                  "engine: the weights must be float64 [count]");
  const Tensor contiguous = as_contiguous(weights);
  const Program program(integers, contiguous.const_data_ptr<double>(), contiguous.numel());
  std::shared_ptr<Engine> engine = is_double ? Engine::make<double>(program) : Engine::make<float>(program);
  const std::lock_guard lock(mutex);
  const int64_t number = engines.empty() ? 1 : engines.rbegin()->first + 1;
  engines.emplace(number, std::move(engine));
  return number;
}

void engine_destroy(int64_t number) {
  const std::lock_guard lock(mutex);
  engines.erase(number);
}

void check_matrix(const Tensor& tensor, int64_t rows, int64_t columns, const char* name,
                  ScalarType type = ScalarType::Double) {
  check_rows(tensor, rows, type, name);
  STD_TORCH_CHECK(tensor.size(1) == columns, name, " must have ", columns, " columns");
}

// positions [N, 3], types and structure [N], cells [B, 9], ptr [N + 1], neighbour [P], shift [P, 3] -> energies [N],
// forces [N, 3] and dE/dstrain [B, 9], the latter two empty unless wanted; neighbour and shift int32; threads 0: as
// many as torch may use
std::tuple<Tensor, Tensor, Tensor> engine_evaluate(Tensor positions_, Tensor types_, Tensor structure_, Tensor cells_,
                                                   Tensor ptr_, Tensor neighbour_, Tensor shift_, int64_t number,
                                                   bool derivatives, int64_t threads) {
  const std::shared_ptr<Engine> engine = engine_of(number);
  const Tensor positions = as_contiguous(positions_), types = as_contiguous(types_),
               structure = as_contiguous(structure_), cells = as_contiguous(cells_), ptr = as_contiguous(ptr_),
               neighbour = as_contiguous(neighbour_), shift = as_contiguous(shift_);
  const int64_t atoms = positions.size(0), structures = cells.size(0), pairs = neighbour.size(0);
  check_matrix(positions, atoms, 3, "engine: positions");
  check_matrix(cells, structures, 9, "engine: cells");
  check_matrix(shift, pairs, 3, "engine: shift", ScalarType::Int);
  check_index(types, atoms, "engine: types");
  check_index(structure, atoms, "engine: structure");
  check_index(ptr, atoms + 1, "engine: ptr");
  STD_TORCH_CHECK(neighbour.dim() == 1 && neighbour.scalar_type() == ScalarType::Int,
                  "engine: neighbour must be int32 [pairs]");
  check_segments(ptr, pairs, "engine: ptr");
  Tensor energies = new_tensor(positions, {atoms}), forces = new_tensor(positions, {derivatives ? atoms : 0, 3}),
         strain = new_tensor(positions, {derivatives ? structures : 0, 9});
  const EngineInput input{atoms, structures, positions.const_data_ptr<double>(), types.const_data_ptr<int64_t>(),
                          structure.const_data_ptr<int64_t>(), cells.const_data_ptr<double>(),
                          ptr.const_data_ptr<int64_t>(), neighbour.const_data_ptr<int32_t>(),
                          shift.const_data_ptr<int32_t>()};
  const EngineOutput output{energies.mutable_data_ptr<double>(),
                            derivatives ? forces.mutable_data_ptr<double>() : nullptr,
                            derivatives ? strain.mutable_data_ptr<double>() : nullptr};
  const int most = std::max(1, int(torch::stable::get_num_threads()));
  engine->evaluate(input, output, threads > 0 ? std::min(most, int(threads)) : most, parallel);
  return {energies, forces, strain};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("engine_create", TORCH_BOX(&nf::engine_create));
  lib.impl("engine_evaluate", TORCH_BOX(&nf::engine_evaluate));
}

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CompositeExplicitAutograd, lib) {
  lib.impl("engine_destroy", TORCH_BOX(&nf::engine_destroy));
}
