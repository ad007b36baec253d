// Parameters from nn.Linear's layout to what the kernels read, and gradients back.
#pragma once
#include <vector>

#include "schedule.h"

namespace fastsiren {

template <class T>
using Net = std::vector<Affine<T>>;  // sine layers, then the output layer

template <class T>
class PackedNet {
 public:
  // `down`: also the transposed panels that adjoint sweeps read.
  PackedNet(const Net<T>& net, const Kernels<T>& kernels, bool down, int threads);
  // Tangents of the parameters of a network: biases are no phases and stay whole, and weights may all be null.
  static PackedNet tangents(const Net<T>& net, const Kernels<T>& kernels, int threads);
  const Packed<T>& get() const { return packed_; }

 private:
  PackedNet() = default;
  void shape(const Net<T>& net);
  T* take(int64_t n);
  void first(const Affine<T>& a, bool phases);
  void hidden(const Net<T>& net, const Kernels<T>& kernels, bool down, int threads);
  void output(const Affine<T>& a, int64_t MO);
  Packed<T> packed_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<int64_t> width_;
  std::vector<T*> bias_, up_, down_;
};

// Where the sums of one segment stand, and their way back into contiguous gradients.
template <class T>
class GradientBuffers {
 public:
  // `weights`: of the weights as well as of the biases.
  GradientBuffers(const Net<T>& net, int64_t align, bool weights);
  const GradientLayout& layout() const { return layout_; }
  void store(const SegmentSums& root, const std::vector<T*>& weights, const std::vector<T*>& biases) const;

 private:
  const Net<T>& net_;
  std::vector<int64_t> weight_, stride_, bias_;
  GradientLayout layout_;
};

}  // namespace fastsiren
