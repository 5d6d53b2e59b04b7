#include "cpu/gate/gate.h"

#include "check.h"

namespace nf::check {

// Every activation, dimensions with and without vectors of their own, multiplicities that fill no vector; the first
// element is read by nobody.
inline GateProblem awkward_gate() {
  GateProblem problem{{}, 1, 0, false};
  int activation = 0;
  for (int dim : {1, 3, 5, 7, 9, 11})
    for (int mul : {1, 4, 19}) {
      const int gate = dim > 1 ? problem.dim_in + mul * dim : -1;
      problem.segments.push_back(
          {problem.dim_in, gate, problem.dim_out, mul, dim, Activation(activation++ % kActivations), 1.5});
      problem.dim_in += mul * dim + (gate < 0 ? 0 : mul);
      problem.dim_out += mul * dim;
    }
  return problem;
}

template <class T>
Results gating(const ParallelFor& parallel) {
  Results results;
  const GateKernels<T>& kernels = gate_kernels<T>();
  const GateProblem problem = awkward_gate();
  for (int64_t rows : {0, 1, 5}) {
    const int64_t in = rows * problem.dim_in, out = rows * problem.dim_out;
    const Exact<T> x = random<T>(in, 1), g = random<T>(out, 2), c = random<T>(in, 3);
    const Exact<T> y = unwritten<T>(out), dx = unwritten<T>(in), dx2 = unwritten<T>(in), dg = unwritten<T>(out);
    parallel(rows, 1, [&](int64_t begin, int64_t end) {
      kernels.gate(problem, x.data(), y.data(), begin, end);
      kernels.vjp(problem, x.data(), g.data(), dx.data(), begin, end);
      kernels.vjp_grad(problem, x.data(), g.data(), c.data(), dx2.data(), dg.data(), begin, end);
    });
    for (const Exact<T>* values : {&y, &dx, &dx2, &dg}) results.add(*values);
  }
  return results;
}

template Results gating<float>(const ParallelFor&);
template Results gating<double>(const ParallelFor&);

}  // namespace nf::check
