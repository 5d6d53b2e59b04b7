// The paths of a convolution and the widths of its rows.
#pragma once

#include <string>
#include <vector>

namespace nf {

// out[out + u·(2 l3 + 1) + m3] += coefficient · w[w + u·w_stride] · Σ C(m1, m2, m3) x[x + u·(2 l1 + 1) + m1] y[y + m2]
struct ConvPath {
  int l1, l2, l3, mul, x, y, w, w_stride, out;
  double coefficient;

  bool weighted() const { return w_stride > 0; }  // else the factor w is 1
};

struct ConvProblem {
  int dim_x = 0, dim_y = 0, dim_w = 0, dim_out = 0;
  std::vector<ConvPath> paths;
  bool covers_w = false;  // every column of w belongs to a path

  // The problem that `text` describes: four widths, then the ten fields of each path, as ConvProblem of
  // nequip_fast/ops/paths.py writes them. Parsed and checked once, then kept. Throws std::runtime_error where a path
  // leaves its rows, breaks the triangle rule, or shares weights or a part of an irrep with another.
  static const ConvProblem& of(const std::string& text);
};

}  // namespace nf
