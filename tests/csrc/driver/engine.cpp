#include "cpu/engine/engine.h"

#include <initializer_list>
#include <utility>

#include "cpu/engine/kernels.h"
#include "graphs.h"

namespace nf::check {
namespace {

constexpr int kTypes = 2, kIntervals = 5, kFunctions = 3, kThreads = 3;

// A program as the lists that nequip_fast/engine/program.py writes, its numbers drawn at random.
class Lists {
 public:
  std::vector<int64_t> integers;
  std::vector<double> numbers;

  void add(std::initializer_list<int64_t> values) { integers.insert(integers.end(), values); }
  void draw(int64_t count, double scale = 0.3) {
    for (int64_t i = 0; i < count; ++i) numbers.push_back(scale * normal_(engine_));
  }
  void constant(int64_t count, double value) { numbers.insert(numbers.end(), count, value); }

  // (l, mul) of segments
  void channels(std::initializer_list<std::pair<int, int>> segments) {
    add({int64_t(segments.size())});
    for (const auto& [l, mul] : segments) add({l, mul});
  }
  void path(int from, int l2, int to, int first) {
    add({from, l2, to, first});
    draw(1);
  }
  void table(int width) {
    add({width, kIntervals});
    for (const double knot : {0.0, 0.2, 0.5, 0.55, 0.9, 1.0}) constant(1, knot);
    draw(int64_t(kIntervals + 1) * 3 * width);
  }
  // a perceptron with these hidden layers, the last of which may be linear
  void network(int width, std::initializer_list<int64_t> hidden, bool combined = false) {
    add({width, 0, int64_t(Activation::silu)});
    constant(1, 1.1);
    add({combined, int64_t(hidden.size())});
    add(hidden);
    int64_t in = kFunctions;
    for (const int64_t out : hidden) draw(in * out), in = out;
    draw(in * width);
  }
  void map(int from, int mul_from, int to, int mul_to, int copies = 1) {
    add({from, to});
    draw(int64_t(copies) * mul_from * mul_to);
  }
  void gate(int from, int gate, Activation activation) {
    add({from, gate, int64_t(activation)});
    constant(1, 1.3);
  }

 private:
  std::mt19937 engine_{1};
  std::normal_distribution<double> normal_;
};

// Channels that fill no vector, one vector, and more; every kind of gate; sums of several paths with gaps between them;
// radial tables and networks of any depth; a residual sum, self-connections and linear maps by type and not; a first layer from the
// embedding, or one by type; a readout with a hidden layer; nuclear repulsion.
Program every_part(bool by_type, bool xplor) {
  Lists lists;
  lists.add({kTypes, 2});
  lists.constant(kTypes * kTypes, 2.5);
  lists.add({kFunctions, int64_t(xplor ? RadialBasis::Envelope::xplor : RadialBasis::Envelope::polynomial)});
  lists.draw(kFunctions, 9.0);
  lists.constant(1, 0.7), lists.constant(1, xplor ? 0.8 : 6.0);
  lists.add({by_type ? 0 : 7});
  if (!by_type) lists.draw(kTypes * 7);
  lists.add({3});
  // first layer: 3 and 16 scalars -> 5 x 0, 5 x 1
  lists.channels({{0, 3}, {0, 16}});
  if (by_type) {
    lists.draw(kTypes * 19);
  } else {
    lists.add({0, 2});
    lists.map(0, 7, 0, 3), lists.map(0, 7, 1, 16);
  }
  lists.network(35, {});
  lists.add({2, 0, 1, 3});
  lists.path(0, 0, 0, 0), lists.path(1, 1, 1, 3), lists.path(1, 0, 0, 19);
  lists.channels({{0, 5}, {1, 5}, {0, 5}});
  lists.add({3});
  lists.map(0, 19, 0, 5), lists.map(1, 16, 1, 5), lists.map(0, 19, 2, 5);
  if (by_type) {
    lists.add({1});
    lists.draw(kTypes * 25);
  } else {
    lists.add({1, 1});
    lists.map(0, 7, 0, 5, kTypes);
  }
  lists.add({2});
  lists.gate(0, kNoGate, Activation::silu), lists.gate(1, 2, Activation::tanh);
  lists.add({0});
  // second: the same again, with a residual sum
  lists.channels({{0, 5}, {1, 17}});
  lists.add({1, 2});
  lists.map(0, 5, 0, 5, kTypes), lists.map(1, 5, 1, 17, kTypes);
  lists.table(39);
  lists.add({2, 0, 1, 3});
  lists.path(1, 1, 0, 0), lists.path(0, 1, 1, 17), lists.path(1, 2, 1, 22);
  lists.channels({{0, 5}, {1, 5}});
  lists.add({2});
  lists.map(0, 17, 0, 5), lists.map(1, 22, 1, 5);
  lists.add({0, 1});
  lists.map(1, 5, 1, 5);
  lists.add({2});
  lists.gate(0, kNormGate, Activation::ssp), lists.gate(1, kNormGate, Activation::sigmoid);
  lists.add({1});
  // last: scalars
  lists.channels({{0, 5}, {1, 5}});
  lists.add({0, 2});
  lists.map(0, 5, 0, 5), lists.map(1, 5, 1, 5);
  lists.network(10, {17, 6}, by_type);
  lists.add({1, 0, 2});
  lists.path(0, 0, 0, 5), lists.path(1, 1, 0, 0);
  lists.channels({{0, 4}});
  lists.add({1});
  lists.map(0, 10, 0, 4);
  lists.add({0, 0, 1});
  lists.gate(0, kNoGate, Activation::silu);
  lists.add({0});
  lists.add({2, 6, int64_t(Activation::mish), 1, int64_t(Activation::identity)});
  lists.draw(4 * 6 + 6);
  lists.draw(2 * kTypes);  // scale, shift
  lists.add({1});
  lists.constant(1, 7.2), lists.constant(1, 6), lists.constant(kTypes, 8);
  return Program(lists.integers, lists.numbers.data(), int64_t(lists.numbers.size()));
}

void evaluate(Engine& engine, const EdgeList& edges, const ParallelFor& parallel, Results& results) {
  const int64_t atoms = edges.nodes, pairs = int64_t(edges.receiver.size()), structures = 2;
  const Visits visits(edges.receiver, atoms);
  const Exact<double> positions = random<double>(3 * atoms, 4);
  const Exact<int64_t> types(atoms), structure(atoms);
  const Exact<int32_t> neighbour(pairs), shift(3 * pairs);
  const Exact<double> cells(9 * structures);
  for (int64_t i = 0; i < atoms; ++i) types.data()[i] = i % kTypes, structure.data()[i] = i % structures;
  for (int64_t i = 0; i < 9 * structures; ++i) cells.data()[i] = i % 4 ? 0.1 : 2.0;
  for (int64_t p = 0; p < pairs; ++p) {
    const int64_t e = visits.order.data()[p];
    neighbour.data()[p] = int32_t(edges.sender[e]);
    for (int c = 0; c < 3; ++c) shift.data()[3 * p + c] = edges.sender[e] == edges.receiver[e] ? 1 : 0;
  }
  const EngineInput input{atoms, structures, positions.data(), types.data(), structure.data(), cells.data(),
                          visits.ptr.data(), neighbour.data(), shift.data()};
  const Exact<double> energies = unwritten<double>(atoms), forces = unwritten<double>(3 * atoms),
                      strain = unwritten<double>(9 * structures), alone = unwritten<double>(atoms);
  engine.evaluate(input, {energies.data(), forces.data(), strain.data()}, kThreads, parallel);
  engine.evaluate(input, {alone.data(), nullptr, nullptr}, kThreads, parallel);
  for (const Exact<double>* values : {&energies, &forces, &strain, &alone}) results.add(*values);
}

}  // namespace

template <class T>
Results inference(const ParallelFor& parallel) {
  Results results;
  for (const bool by_type : {true, false}) {
    const std::unique_ptr<Engine> engine = Engine::make<T>(every_part(by_type, !by_type));
    for (const EdgeList& edges : awkward_graphs()) evaluate(*engine, edges, parallel, results);
  }
  return results;
}

template Results inference<float>(const ParallelFor&);
template Results inference<double>(const ParallelFor&);

}  // namespace nf::check
