#include "cpu/spherical_harmonics/harmonics.h"

#include "check.h"

namespace nf::check {

template <class T>
Results harmonics(const ParallelFor& parallel) {
  Results results;
  const HarmonicKernels<T>& kernels = harmonic_kernels<T>();
  const std::vector<std::vector<int64_t>> all_degrees{{0},          {1},    {0, 1},       {2}, {0, 1, 2}, {0, 1, 2, 3},
                                                      {3, 1, 1, 0}, {2, 2}, {0, 1, 2, 4}, {11}};
  for (const auto& degrees : all_degrees)
    for (bool normalize : {true, false})
      for (int64_t rows : {0, 1, 7, 16, 35}) {
        const HarmonicProblem problem(degrees, HarmonicScale::norm, normalize);
        const int64_t dim = problem.dim();
        const Exact<T> r = random<T>(rows * 3, 1), g = random<T>(rows * dim, 2), c = random<T>(rows * 3, 3);
        const Exact<T> y = unwritten<T>(rows * dim), dr = unwritten<T>(rows * 3);
        const Exact<T> dr2 = unwritten<T>(rows * 3), dg = unwritten<T>(rows * dim);
        parallel(rows, 1, [&](int64_t begin, int64_t end) {
          kernels.harmonics(problem, r.data(), y.data(), begin, end);
          kernels.vjp(problem, r.data(), g.data(), dr.data(), begin, end);
          kernels.vjp_grad(problem, r.data(), g.data(), c.data(), dr2.data(), dg.data(), begin, end);
        });
        for (const Exact<T>* values : {&y, &dr, &dr2, &dg}) results.add(*values);
      }
  return results;
}

template Results harmonics<float>(const ParallelFor&);
template Results harmonics<double>(const ParallelFor&);

}  // namespace nf::check
