// One number at a time in portable C++: runs on any machine, and shows what the vector types must do.
#include <cmath>
#include <cstring>

#include "../engine.h"

namespace fastsiren {
namespace {

template <class Number>
struct Scalar {
  using T = Number;
  using R = Number;
  using I = int;
  static constexpr int L = 1, MR = 4, NV = 4, WM = 4, WV = 4;
  static inline R load(const T* p) { return *p; }
  static inline void store(T* p, R a) { *p = a; }
  static inline R set(T a) { return a; }
  static inline R add(R a, R b) { return a + b; }
  static inline R sub(R a, R b) { return a - b; }
  static inline R mul(R a, R b) { return a * b; }
  static inline R fma(R a, R b, R c) { return a * b + c; }
  static inline R fms(R a, R b, R c) { return a * b - c; }
  static inline R fnma(R a, R b, R c) { return c - a * b; }
  // A single rounding: the first layer takes whole turns off a product of thousands of turns.
  static inline R fms_exact(R a, R b, R c) { return std::fma(a, b, -c); }
  static inline R round(R a) { return std::nearbyint(a); }
  static inline R round_half(R a) { return R(0.5) * round(a + a); }
  static inline I quadrant(R k) {
    R q = k - 4 * std::nearbyint(k * R(0.25));
    return q == q ? static_cast<int>(q) : 0;
  }
  static inline I next(I q) { return q + 1; }
  static inline R pick_odd(I q, R even, R odd) { return q & 1 ? odd : even; }
  static inline R flip_if(R a, I q) { return q & 2 ? -a : a; }
  static inline void transpose(const T* p, int64_t, T* out, int64_t) { *out = *p; }
};

#include "../generic/engine.inl.h"

bool supported() {
  return true;
}

const Kernels<float> f32 = kernels<Scalar<float>>();
const Kernels<double> f64 = kernels<Scalar<double>>();

}  // namespace
extern const Isa scalar;
const Isa scalar{"scalar", supported, &f32, &f64};
}  // namespace fastsiren
