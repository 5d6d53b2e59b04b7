// The tangents of an operator that is linear in each of x, y and w, between torch and the kernels.
#pragma once

#include <optional>

#include "tensors.h"

namespace nf {

// Shapes as those of x, y and w of `Inputs`, which checks them by check_matrix and names them in kTangents; contiguous.
template <class Inputs>
struct Tangents {
  std::optional<Tensor> x, y, w;

  Tangents(const Inputs& in, const std::optional<Tensor>& x_, const std::optional<Tensor>& y_,
           const std::optional<Tensor>& w_)
      : x(checked(in, x_, in.x, Inputs::kTangents[0])), y(checked(in, y_, in.y, Inputs::kTangents[1])),
        w(checked(in, w_, in.w, Inputs::kTangents[2])) {}

  static std::optional<Tensor> checked(const Inputs& in, const std::optional<Tensor>& tangent, const Tensor& at,
                                       const char* name) {
    if (!tangent) return std::nullopt;
    in.check_matrix(*tangent, at.size(0), at.size(1), name);
    return as_contiguous(*tangent);
  }

  // {x, y, w} as Direction; null where there is no tangent.
  template <class Direction, class T>
  Direction direction() const {
    const auto data = [](const std::optional<Tensor>& t) { return t ? t->const_data_ptr<T>() : nullptr; };
    return {data(x), data(y), data(w)};
  }
};

}  // namespace nf
