#include "pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fastsiren {
namespace {
constexpr double PI = 3.14159265358979323846;
// Weights that one thread packs in the time a team takes to start.
constexpr int64_t SHARE = 1 << 18;
}  // namespace

template <class T>
PackedNet<T>::PackedNet(const Net<T>& net, const Kernels<T>& kernels, bool down, int threads) {
  shape(net);
  first(net.front(), true);
  hidden(net, kernels, down, threads);
  output(net.back(), kernels.output_rows(packed_.O));
  if (!kernels.pack_extra) return;
  const size_t bytes = kernels.pack_extra(net.data(), packed_.sines, down, nullptr, 0, 1);
  T* extra = take(static_cast<int64_t>(bytes / sizeof(T)));
  parallel(threads, [&](int id) { kernels.pack_extra(net.data(), packed_.sines, down, extra, id, threads); });
  packed_.extra = extra;
}

template <class T>
PackedNet<T> PackedNet<T>::tangents(const Net<T>& net, const Kernels<T>& kernels, int threads) {
  PackedNet dots;
  dots.shape(net);
  dots.first(net.front(), false);
  dots.hidden(net, kernels, true, threads);
  dots.output(net.back(), kernels.output_rows(dots.packed_.O));
  return dots;
}

template <class T>
void PackedNet<T>::shape(const Net<T>& net) {
  const size_t sines = net.size() - 1;
  bias_.resize(sines), up_.resize(sines), down_.resize(sines);
  for (size_t l = 0; l < sines; l++) width_.push_back(net[l].out);
  packed_ = {};
  packed_.sines = static_cast<int64_t>(sines);
  packed_.D = net.front().in;
  packed_.O = net.back().out;
  packed_.max_width = *std::max_element(width_.begin(), width_.end());
  packed_.width = width_.data();
  packed_.bias = bias_.data();
  packed_.up = up_.data();
}

template <class T>
T* PackedNet<T>::take(int64_t n) {
  blocks_.push_back(std::make_unique<Block>(static_cast<size_t>(n) * sizeof(T) + 64));
  return reinterpret_cast<T*>(blocks_.back()->data());
}

template <class T>
void PackedNet<T>::first(const Affine<T>& a, bool phases) {
  const int64_t n = a.out * a.in;
  // long double keeps what rounding to T loses, also for T = double.
  const long double scale = static_cast<long double>(a.omega) / 3.14159265358979323846264338327950288L;
  T* bias = bias_[0] = take(a.out);
  for (int64_t i = 0; i < a.out; i++) {
    const long double b = a.b[i] * scale;
    bias[i] = static_cast<T>(phases ? std::remainder(b, 2.0L) : b);
  }
  if (!a.W) return;
  T *hi = take(n), *lo = take(n);
  for (int64_t i = 0; i < n; i++) {
    const long double w = a.W[i] * scale;
    hi[i] = static_cast<T>(w);
    lo[i] = static_cast<T>(w - hi[i]);
  }
  packed_.first_hi = hi, packed_.first_lo = lo;
}

template <class T>
void PackedNet<T>::hidden(const Net<T>& net, const Kernels<T>& kernels, bool down, int threads) {
  const int64_t MR = kernels.panel_rows, sines = packed_.sines;
  auto panels = [&](int64_t rows, int64_t K) { return take((rows + MR - 1) / MR * K * MR); };
  packed_.down = down ? down_.data() : nullptr;
  int64_t weights = 0;
  for (size_t l = 1; l < static_cast<size_t>(sines); l++) {
    const Affine<T>& a = net[l];
    bias_[l] = take(a.out);
    for (int64_t i = 0; i < a.out; i++) bias_[l][i] = static_cast<T>(a.b[i] * (a.omega / PI));
    if (!a.W) continue;
    up_[l] = panels(a.out, a.in);
    if (down) down_[l] = panels(a.in, a.out);
    weights += a.out * a.in;
  }
  if (!weights) return;
  const int shares = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, weights / SHARE)));
  parallel(shares, [&](int id) {
    for (size_t l = 1; l < static_cast<size_t>(sines); l++) kernels.pack(net[l], up_[l], down_[l], id, shares);
  });
}

template <class T>
void PackedNet<T>::output(const Affine<T>& a, int64_t MO) {
  const int64_t count = (a.out + MO - 1) / MO;
  T* bias = take(a.out);
  for (int64_t r = 0; r < a.out; r++) bias[r] = static_cast<T>(a.b[r] * a.omega);
  packed_.out_b = bias;
  if (!a.W) return;
  T *panels = take(count * a.in * MO), *rows = take(a.out * a.in);
  for (int64_t p = 0; p < count; p++)
    for (int64_t k = 0; k < a.in; k++)
      for (int64_t m = 0; m < MO; m++) {
        const int64_t r = p * MO + m;
        panels[(p * a.in + k) * MO + m] = r < a.out ? static_cast<T>(a.W[r * a.in + k] * a.omega) : T(0);
      }
  for (int64_t i = 0; i < a.out * a.in; i++) rows[i] = static_cast<T>(a.W[i] * a.omega);
  packed_.out_W = panels, packed_.out_rows = rows;
}

template <class T>
GradientBuffers<T>::GradientBuffers(const Net<T>& net, int64_t align, bool weights) : net_(net) {
  int64_t at = 0;
  for (size_t l = 0; l < net.size(); l++) {
    stride_.push_back((net[l].in + align - 1) / align * align);
    weight_.push_back(at);
    if (weights) at += net[l].out * stride_[l];
    if (l + 1 == net.size()) break;
    bias_.push_back(at);
    at += (net[l].out + align - 1) / align * align;
  }
  layout_ = {weight_.data(), stride_.data(), bias_.data(), at, 1 + net.back().out, weights};
}

template <class T>
void GradientBuffers<T>::store(const SegmentSums& root, const std::vector<T*>& weights,
                               const std::vector<T*>& biases) const {
  const T* values = static_cast<const T*>(root.values);
  for (size_t l = 0; l < net_.size(); l++) {
    const Affine<T>& a = net_[l];
    const bool last = l + 1 == net_.size();
    const double scale = last ? 1.0 : a.omega / PI;
    for (int64_t r = 0; r < a.out; r++) {
      for (int64_t k = 0; layout_.weights && k < a.in; k++)
        weights[l][r * a.in + k] = values ? static_cast<T>(values[weight_[l] + r * stride_[l] + k] * scale) : T(0);
      const double b = !values ? 0.0 : last ? root.doubles[1 + r] : values[bias_[l] + r] * scale;
      biases[l][r] = static_cast<T>(b);
    }
  }
}

template class PackedNet<float>;
template class PackedNet<double>;
template class GradientBuffers<float>;
template class GradientBuffers<double>;

}  // namespace fastsiren
