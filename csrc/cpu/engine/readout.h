// From the last features of a node to its energy, and back.
#pragma once

#include <vector>

#include "cpu/engine/layers.h"

namespace nf {

template <class T>
class Readout {
 public:
  // `features`: of the last layer, all scalars
  Readout(const std::vector<ReadoutLayer>& layers, const RowLayout& features, const EngineKernels<T>& kernels)
      : kernels_(kernels) {
    std::vector<int> place;  // of each input among the row, where there is padding in between
    for (const Segment& s : features.segments)
      for (int u = 0; u < s.mul; ++u) place.push_back(s.at + u);
    int inner = features.width;
    for (const ReadoutLayer& layer : layers) {
      const int width = padded(layer.out, kernels.lanes);
      Matrix<T> forward(inner, width), reverse(layer.out, padded(inner, kernels.lanes));
      for (int i = 0; i < layer.in; ++i)
        for (int j = 0; j < layer.out; ++j)
          forward.at(place[i], j) = reverse.at(j, place[i]) = T(layer.matrix[int64_t(i) * layer.out + j]);
      layers_.push_back({std::move(forward), std::move(reverse), {0, kNoGate, 0, width, 1, layer.activation, 1.0}});
      inner = layer.out;
      place.resize(inner);
      for (int i = 0; i < inner; ++i) place[i] = i;
    }
  }

  // Elements of working memory: of each layer what goes into the activation and what comes out, and two gradients.
  int64_t memory() const {
    int64_t sum = 0;
    for (const Layer& layer : layers_) sum += 4 * std::max(layer.forward.width, layer.reverse.width);
    return sum;
  }

  // The sum of the last layer for a row of features.
  T forward(const T* features, T* memory) const {
    for (const Layer& layer : layers_) {
      T *before = memory, *after = before + layer.forward.width;
      kernels_.multiply(1, &features, layer.forward.inner, layer.forward.data.get(), layer.forward.width, &before, false);
      kernels_.gate(layer.activation, before, after);
      features = after;
      memory = after + layer.forward.width;
    }
    return features[0];
  }

  // `to_features` = the gradient, after forward() with the same memory, times `scale`.
  void reverse(T scale, T* memory, T* to_features) const {
    T* end = memory;
    for (const Layer& layer : layers_) end += 2 * layer.forward.width;
    T *g = end, *before = end;
    std::fill_n(g, layers_.back().forward.width, T(0));
    g[0] = scale;
    for (size_t k = layers_.size(); k-- > 0;) {
      const Layer& layer = layers_[k];
      before -= 2 * layer.forward.width;
      T* const pulled = g + layer.forward.width;
      kernels_.gate_vjp(layer.activation, before, g, pulled);
      const T* row = pulled;
      g = pulled + layer.forward.width;
      T* target = k ? g : to_features;
      kernels_.multiply(1, &row, layer.reverse.inner, layer.reverse.data.get(), layer.reverse.width, &target, false);
    }
  }

 private:
  struct Layer {
    Matrix<T> forward, reverse;
    ChannelGate activation;
  };

  const EngineKernels<T>& kernels_;
  std::vector<Layer> layers_;
};

}  // namespace nf
