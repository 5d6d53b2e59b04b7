// spherical_harmonics: from torch tensors to the kernels.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "cpu/spherical_harmonics/harmonics.h"
#include "tensors.h"

namespace nf {
namespace {

constexpr int64_t kNumbersPerTask = 1 << 14;  // fewer are not worth waking a thread for

// Rows of `dim` numbers, any number of leading dimensions.
Tensor harmonic_rows(const Tensor& tensor, const Tensor& like, int64_t dim, const char* name) {
  STD_TORCH_CHECK(are_rows(tensor, like, dim) && tensor.is_cpu() && tensor.scalar_type() == like.scalar_type(),
                  "spherical_harmonics: ", name, " must be a CPU tensor [..., ", dim, "] of the shape and dtype of the others");
  return as_contiguous(tensor);
}

template <class Body>
void each_harmonic_row(const Tensor& r, const HarmonicProblem& problem, const Body& body) {
  by_dtype(r, "spherical_harmonics", [&](auto t) {
    const HarmonicKernels<decltype(t)>& kernels = harmonic_kernels<decltype(t)>();
    parallel(r.numel() / 3, kNumbersPerTask / problem.dim() + 1,
             [&](int64_t begin, int64_t end) { body(kernels, t, begin, end); });
  });
}

Tensor spherical_harmonics_cpu(Tensor vectors, std::vector<int64_t> degrees, std::string normalization,
                               bool normalize) {
  const HarmonicProblem problem(degrees, normalization, normalize);
  const Tensor r = harmonic_rows(vectors, vectors, 3, "vectors");
  Tensor y = new_rows(r, problem.dim());
  each_harmonic_row(r, problem, [&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.harmonics(problem, r.const_data_ptr<T>(), y.mutable_data_ptr<T>(), begin, end);
  });
  return y;
}

Tensor spherical_harmonics_vjp_cpu(Tensor vectors, Tensor g_, std::vector<int64_t> degrees, std::string normalization,
                                   bool normalize) {
  const HarmonicProblem problem(degrees, normalization, normalize);
  const Tensor r = harmonic_rows(vectors, vectors, 3, "vectors"), g = harmonic_rows(g_, r, problem.dim(), "g");
  Tensor dr = new_rows(r, 3);
  each_harmonic_row(r, problem, [&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.vjp(problem, r.const_data_ptr<T>(), g.const_data_ptr<T>(), dr.mutable_data_ptr<T>(), begin, end);
  });
  return dr;
}

std::tuple<Tensor, Tensor> spherical_harmonics_vjp_grad_cpu(Tensor vectors, Tensor g_, Tensor c_,
                                                            std::vector<int64_t> degrees, std::string normalization,
                                                            bool normalize) {
  const HarmonicProblem problem(degrees, normalization, normalize);
  const Tensor r = harmonic_rows(vectors, vectors, 3, "vectors"), g = harmonic_rows(g_, r, problem.dim(), "g"),
               c = harmonic_rows(c_, r, 3, "c");
  Tensor dr = new_rows(r, 3), dg = new_rows(r, problem.dim());
  each_harmonic_row(r, problem, [&](const auto& kernels, auto t, int64_t begin, int64_t end) {
    using T = decltype(t);
    kernels.vjp_grad(problem, r.const_data_ptr<T>(), g.const_data_ptr<T>(), c.const_data_ptr<T>(),
                     dr.mutable_data_ptr<T>(), dg.mutable_data_ptr<T>(), begin, end);
  });
  return {dr, dg};
}

}  // namespace
}  // namespace nf

STABLE_TORCH_LIBRARY_IMPL(nequip_fast, CPU, lib) {
  lib.impl("spherical_harmonics", TORCH_BOX(&nf::spherical_harmonics_cpu));
  lib.impl("spherical_harmonics_vjp", TORCH_BOX(&nf::spherical_harmonics_vjp_cpu));
  lib.impl("spherical_harmonics_vjp_grad", TORCH_BOX(&nf::spherical_harmonics_vjp_grad_cpu));
}
