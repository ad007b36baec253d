// 16-byte vector extensions of GCC and Clang with the rounding instruction of aarch64; the compiler forms fused
// multiply-adds.
#include <cmath>
#include <cstring>

#include "../engine.h"
#if defined(__aarch64__)
#include <arm_neon.h>

namespace fastsiren {
namespace {

struct Float {
  using T = float;
  using R = float32x4_t;
  using I = int32x4_t;
  static constexpr int L = 4, MR = 8, NV = 3, WM = 6, WV = 4;
  static inline R load(const T* p) { return vld1q_f32(p); }
  static inline void store(T* p, R a) { vst1q_f32(p, a); }
  static inline R set(T a) { return vdupq_n_f32(a); }
  static inline R add(R a, R b) { return a + b; }
  static inline R sub(R a, R b) { return a - b; }
  static inline R mul(R a, R b) { return a * b; }
  static inline R fma(R a, R b, R c) { return vfmaq_f32(c, a, b); }
  static inline R fms(R a, R b, R c) { return vfmaq_f32(-c, a, b); }
  static inline R fnma(R a, R b, R c) { return vfmsq_f32(c, a, b); }
  static inline R fms_exact(R a, R b, R c) { return fms(a, b, c); }
  static inline R round(R a) { return vrndnq_f32(a); }
  static inline R round_half(R a) { return mul(set(0.5f), round(add(a, a))); }
  // The conversion saturates: take k mod 4 first, exactly.
  static inline I quadrant(R k) { return vcvtnq_s32_f32(fnma(set(4), round(mul(k, set(0.25f))), k)); }
  static inline I next(I q) { return q + vdupq_n_s32(1); }
  static inline R pick_odd(I q, R even, R odd) {
    return vbslq_f32(vreinterpretq_u32_s32(-(q & vdupq_n_s32(1))), odd, even);
  }
  static inline R flip_if(R a, I q) {
    return vreinterpretq_f32_s32(vreinterpretq_s32_f32(a) ^ vshlq_n_s32(q & vdupq_n_s32(2), 30));
  }
  static inline void transpose(const T* p, int64_t step, T* out, int64_t out_step) {
    for (int i = 0; i < L; i++)
      for (int j = 0; j < L; j++) out[j * out_step + i] = p[i * step + j];
  }
};

struct Double {
  using T = double;
  using R = float64x2_t;
  using I = int64x2_t;
  static constexpr int L = 2, MR = 8, NV = 3, WM = 6, WV = 4;
  static inline R load(const T* p) { return vld1q_f64(p); }
  static inline void store(T* p, R a) { vst1q_f64(p, a); }
  static inline R set(T a) { return vdupq_n_f64(a); }
  static inline R add(R a, R b) { return a + b; }
  static inline R sub(R a, R b) { return a - b; }
  static inline R mul(R a, R b) { return a * b; }
  static inline R fma(R a, R b, R c) { return vfmaq_f64(c, a, b); }
  static inline R fms(R a, R b, R c) { return vfmaq_f64(-c, a, b); }
  static inline R fnma(R a, R b, R c) { return vfmsq_f64(c, a, b); }
  static inline R fms_exact(R a, R b, R c) { return fms(a, b, c); }
  static inline R round(R a) { return vrndnq_f64(a); }
  static inline R round_half(R a) { return mul(set(0.5), round(add(a, a))); }
  static inline I quadrant(R k) { return vcvtnq_s64_f64(fnma(set(4), round(mul(k, set(0.25))), k)); }
  static inline I next(I q) { return q + vdupq_n_s64(1); }
  static inline R pick_odd(I q, R even, R odd) {
    return vbslq_f64(vreinterpretq_u64_s64(-(q & vdupq_n_s64(1))), odd, even);
  }
  static inline R flip_if(R a, I q) {
    return vreinterpretq_f64_s64(vreinterpretq_s64_f64(a) ^ vshlq_n_s64(q & vdupq_n_s64(2), 62));
  }
  static inline void transpose(const T* p, int64_t step, T* out, int64_t out_step) {
    for (int i = 0; i < L; i++)
      for (int j = 0; j < L; j++) out[j * out_step + i] = p[i * step + j];
  }
};

#include "../generic/engine.inl.h"

bool supported() {
  return true;
}

const Kernels<float> f32 = kernels<Float>();
const Kernels<double> f64 = kernels<Double>();

}  // namespace
extern const Isa neon;
const Isa neon{"neon", supported, &f32, &f64};
}  // namespace fastsiren
#endif
