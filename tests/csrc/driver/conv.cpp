#include "cpu/conv/conv.h"

#include <initializer_list>
#include <sstream>

#include "cg_tables.h"
#include "graphs.h"

namespace nf::check {
namespace {

// Two paths of compiled degrees that share x and the output, one beyond them, one of two edge attributes, and one
// without weights; columns of each operand that belong to none.
std::string problem(int mul) {
  std::ostringstream paths;
  int x = 1, w = 1, out = 1;
  const auto add = [&](int l1, int y, int l2, int l3, int stride, int at_w) {
    for (int field : {l1, l2, l3, mul, x, y, at_w, stride, out}) paths << ' ' << field;
    paths << " 0.75";
  };
  add(1, 1, 1, 1, 1, w);
  add(1, 4, 2, 1, 1, w + mul);
  x += 3 * mul, out += 3 * mul, w += 2 * mul;
  add(kMaxL + 1, 1, 1, kMaxL, 1, w);
  x += (2 * kMaxL + 3) * mul, out += (2 * kMaxL + 1) * mul, w += mul;
  add(0, 1, 1, 1, 2, w);
  add(0, 9, 1, 1, 2, w + 1);
  x += mul, out += 3 * mul, w += 2 * mul;
  add(2, 0, 0, 2, 0, 0);
  x += 5 * mul, out += 5 * mul;
  std::ostringstream widths;
  widths << x + 1 << " 13 " << w + 1 << ' ' << out + 1;
  return widths.str() + paths.str();
}

// Each of the kernels made for its degrees, on channels that fill no vector.
std::string every_compiled_path() {
  constexpr int kMul = 3;
  std::ostringstream paths;
  int w = 0, out = 0;
  for (int l1 = 0; l1 <= kMaxL; ++l1)
    for (int l2 = 0; l2 <= kMaxL; ++l2)
      for (int l3 = std::abs(l1 - l2); l3 <= std::min(l1 + l2, kMaxL); ++l3) {
        for (int field : {l1, l2, l3, kMul, kMul * l1 * l1, l2 * l2, w, 1, out}) paths << ' ' << field;
        paths << " 0.75";
        w += kMul, out += kMul * (2 * l3 + 1);
      }
  constexpr int kDegrees = (kMaxL + 1) * (kMaxL + 1);
  std::ostringstream widths;
  widths << kMul * kDegrees << ' ' << kDegrees << ' ' << w << ' ' << out;
  return widths.str() + paths.str();
}

template <class T>
void one(const ConvProblem& problem, const EdgeList& edges, const ParallelFor& parallel, Results& results) {
  const int64_t count = int64_t(edges.receiver.size()), nodes = edges.nodes;
  const Visits by_receiver(edges.receiver, nodes), by_sender(edges.sender, nodes);
  const Exact<int64_t> receiver = edges.receiver, sender = edges.sender;
  const ConvGraph graph{count, receiver.data(), sender.data(), {nodes, by_receiver.ptr.data(), by_receiver.order.data()},
                        {nodes, by_sender.ptr.data(), by_sender.order.data()}};
  const int64_t size_x = nodes * problem.dim_x, size_y = count * problem.dim_y, size_w = count * problem.dim_w;
  const Exact<T> x = random<T>(size_x, 1), y = random<T>(size_y, 2), w = random<T>(size_w, 3), dx = random<T>(size_x, 4),
                 dy = random<T>(size_y, 5), dw = random<T>(size_w, 6), g = random<T>(nodes * problem.dim_out, 7);
  const ConvPoint<T> at{x.data(), y.data(), w.data()};
  for (const ConvTangent<T>& along : std::initializer_list<ConvTangent<T>>{
           {{nullptr, nullptr, nullptr}}, {{dx.data(), dy.data(), dw.data()}}, {{nullptr, nullptr, dw.data()}}}) {
    const Exact<T> out = unwritten<T>(nodes * problem.dim_out);
    conv(graph, problem, at, along, out.data(), {3, parallel});
    results.add(out);
    for (int wanted : {1, 2, 4, 6, 7}) {
      const Exact<T> to_x = unwritten<T>(wanted & 1 ? size_x : 0), to_y = unwritten<T>(wanted & 2 ? size_y : 0),
                     to_w = unwritten<T>(wanted & 4 ? size_w : 0);
      const ConvGradient<T> to{wanted & 1 ? to_x.data() : nullptr, wanted & 2 ? to_y.data() : nullptr,
                               wanted & 4 ? to_w.data() : nullptr};
      conv_gradient(graph, problem, at, along, g.data(), to, {3, parallel});
      for (const Exact<T>* gradient : {&to_x, &to_y, &to_w}) results.add(*gradient);
    }
  }
}

}  // namespace

template <class T>
Results convolution(const ParallelFor& parallel) {
  Results results;
  for (const std::string& text : {problem(1), problem(5), problem(16), problem(33), every_compiled_path()})
    for (const EdgeList& edges : awkward_graphs()) one<T>(ConvProblem::of(text), edges, parallel, results);
  return results;
}

template Results convolution<float>(const ParallelFor&);
template Results convolution<double>(const ParallelFor&);

}  // namespace nf::check
