// A program's layers made ready for the kernels: rows laid out in whole vectors, matrices and tables padded to match.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/conv/steps.h"
#include "cpu/engine/matrix.h"
#include "cpu/engine/radial.h"
#include "cpu/engine/program.h"
#include "cpu/padded.h"
#include "cpu/scratch.h"

namespace nf {

// A segment of a row: [components][padded] from `at`. Of sums over neighbours the channels of each path begin a vector
// of their own, so that there are gaps among `inner` channels.
struct Segment {
  int l, components, mul, inner, padded, at;
};

struct RowLayout {
  std::vector<Segment> segments;
  int width = 0;

  void add(int l, int mul, int inner, int padded) {
    segments.push_back({l, 2 * l + 1, mul, inner, padded, width});
    width += (2 * l + 1) * padded;
  }
};

template <class T>
struct PreparedMap {
  int from, to;
  std::vector<Matrix<T>> forward, reverse;  // one, or one for each type
};

template <class T>
struct PreparedPath {
  GatherStep<T> forward;
  GradientStep<T> gradient;
  int width;  // of its weights
};

template <class T>
struct PreparedLayer {
  RowLayout in, sent, summed, before_gate, out;
  std::vector<PreparedMap<T>> send, mix, self_connection;
  std::vector<PreparedPath<T>> paths;
  std::unique_ptr<Radial<T>> radial;
  std::vector<ChannelGate> gate;
  bool by_type, residual, has_bias, send_by_type, connect_by_type;
  Scratch<T> sent_by_type, bias_by_type;  // [types][width] of a layer whose input depends on the type alone
  int64_t scratch = 0;                    // for the convolution's kernels
  int widest = 0;                         // of the paths' weights

  PreparedLayer(const LayerProgram& layer, const Program& program, const ConvKernels<T>& conv,
                const EngineKernels<T>& kernels)
      : by_type(layer.by_type), residual(layer.residual), has_bias(!layer.bias_by_type.empty()),
        send_by_type(layer.send_by_type), connect_by_type(layer.connect_by_type), sent_by_type(0), bias_by_type(0),
        lanes_(conv.lanes) {
    in = channels(layer.in);
    sent = channels(layer.sent);
    before_gate = channels(layer.before_gate);
    out = channels(layer.out);
    std::vector<std::vector<int>> place(layer.summed.size());  // where each channel of a sum stands
    std::vector<int> ends(layer.summed.size(), 0);
    std::vector<int> starts;
    for (const ConvolutionPath& path : layer.paths) {
      const int mul = layer.sent[path.from].mul;
      starts.push_back(ends[path.to]);
      for (int u = 0; u < mul; ++u) place[path.to].push_back(ends[path.to] + u);
      ends[path.to] += padded(mul, lanes_);
    }
    for (size_t i = 0; i < layer.summed.size(); ++i)
      summed.add(layer.summed[i].l, layer.summed[i].mul, ends[i], ends[i]);
    for (size_t k = 0; k < layer.paths.size(); ++k) paths.push_back(prepare(layer.paths[k], starts[k], conv));
    std::vector<int> widths;
    for (const PreparedPath<T>& path : paths) widths.push_back(path.width), widest = std::max(widest, path.width);
    radial = Radial<T>::make(layer, widths, kernels);
    send = maps(layer.send, in, sent, {}, send_by_type ? program.types : 1);
    mix = maps(layer.mix, summed, before_gate, place, 1);
    self_connection = maps(layer.self_connection, in, before_gate, {}, connect_by_type ? program.types : 1);
    for (size_t i = 0; i < layer.gate.size(); ++i) {
      const GateStep& step = layer.gate[i];
      const Segment &from = before_gate.segments[step.from], &to = out.segments[i];
      gate.push_back({from.at, step.gate < 0 ? step.gate : before_gate.segments[step.gate].at, to.at, to.padded, to.components,
                      step.activation, step.constant});
    }
    if (by_type) {
      sent_by_type = by_type_rows(layer.sent_by_type, sent, program.types);
      if (has_bias) bias_by_type = by_type_rows(layer.bias_by_type, before_gate, program.types);
    }
  }

  // `values` [types][…, channels last] as rows
  Scratch<T> by_type_rows(const std::vector<double>& values, const RowLayout& layout, int types) const {
    Scratch<T> rows(int64_t(types) * layout.width);
    std::fill_n(rows.get(), int64_t(types) * layout.width, T(0));
    const double* value = values.data();
    for (int type = 0; type < types; ++type)
      for (const Segment& s : layout.segments)
        for (int m = 0; m < s.components; ++m)
          for (int u = 0; u < s.mul; ++u)
            rows.get()[int64_t(type) * layout.width + s.at + m * s.padded + u] = T(*value++);
    return rows;
  }

 private:
  int lanes_;

  RowLayout channels(const std::vector<Channels>& segments) const {
    RowLayout layout;
    for (const Channels& s : segments) layout.add(s.l, s.mul, s.mul, padded(s.mul, lanes_));
    return layout;
  }

  PreparedPath<T> prepare(const ConvolutionPath& path, int start, const ConvKernels<T>& conv) {
    const Segment &from = sent.segments[path.from], &to = summed.segments[path.to];
    const PathArgs args{from.mul, from.at, path.l2 * path.l2, 0, 1, to.at + start, from.padded, to.padded,
                        0, false, path.coefficient, {}};
    PreparedPath<T> prepared{gather_step(conv, from.l, path.l2, to.l, args),
                             gradient_step(conv, from.l, path.l2, to.l, args), from.padded};
    scratch = std::max(scratch, nf::scratch(prepared.gradient, lanes_));
    return prepared;
  }

  // `place`: of the channels of `from`, where they are not side by side
  std::vector<PreparedMap<T>> maps(const std::vector<LinearMap>& maps, const RowLayout& from, const RowLayout& to,
                                   const std::vector<std::vector<int>>& place, int copies) const {
    std::vector<PreparedMap<T>> prepared;
    for (const LinearMap& map : maps) {
      const Segment &a = from.segments[map.from], &b = to.segments[map.to];
      PreparedMap<T> matrices{map.from, map.to, {}, {}};
      const double* value = map.matrix.data();
      for (int copy = 0; copy < copies; ++copy) {
        Matrix<T> forward(a.inner, b.padded), reverse(b.mul, a.padded);
        for (int u = 0; u < a.mul; ++u) {
          const int row = place.empty() ? u : place[map.from][u];
          for (int v = 0; v < b.mul; ++v) forward.at(row, v) = reverse.at(v, row) = T(*value++);
        }
        matrices.forward.push_back(std::move(forward));
        matrices.reverse.push_back(std::move(reverse));
      }
      prepared.push_back(std::move(matrices));
    }
    return prepared;
  }
};

}  // namespace nf
