// AVX2 with FMA: 8 floats or 4 doubles, 16 registers: 6 x 2 accumulators, 2 of points, 1 broadcast weight.
#include <cmath>
#include <cstring>

#include "../engine.h"
#include "../generic/target.h"
#if defined(__x86_64__)
#include <immintrin.h>

FASTSIREN_TARGET("avx2,fma")

namespace fastsiren {
namespace {

struct Float {
  using T = float;
  using R = __m256;
  using I = __m256i;
  static constexpr int L = 8, MR = 6, NV = 2, WM = 6, WV = 2;
  static inline R load(const T* p) { return _mm256_loadu_ps(p); }
  static inline void store(T* p, R a) { _mm256_storeu_ps(p, a); }
  static inline R set(T a) { return _mm256_set1_ps(a); }
  static inline R add(R a, R b) { return _mm256_add_ps(a, b); }
  static inline R sub(R a, R b) { return _mm256_sub_ps(a, b); }
  static inline R mul(R a, R b) { return _mm256_mul_ps(a, b); }
  static inline R fma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }
  static inline R fms(R a, R b, R c) { return _mm256_fmsub_ps(a, b, c); }
  static inline R fnma(R a, R b, R c) { return _mm256_fnmadd_ps(a, b, c); }
  static inline R fms_exact(R a, R b, R c) { return fms(a, b, c); }
  static inline R round(R a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static inline R round_half(R a) { return mul(set(0.5f), round(add(a, a))); }
  static inline I quadrant(R k) { return _mm256_cvtps_epi32(k); }
  static inline I next(I q) { return _mm256_add_epi32(q, _mm256_set1_epi32(1)); }
  static inline R pick_odd(I q, R even, R odd) {
    return _mm256_blendv_ps(even, odd, _mm256_castsi256_ps(_mm256_slli_epi32(q, 31)));
  }
  static inline R flip_if(R a, I q) {
    I sign = _mm256_slli_epi32(_mm256_and_si256(q, _mm256_set1_epi32(2)), 30);
    return _mm256_xor_ps(a, _mm256_castsi256_ps(sign));
  }
  static inline void transpose(const T* p, int64_t step, T* out, int64_t out_step) {
    R a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) a[i] = load(p + i * step);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
      b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      a[4 * i] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
      a[4 * i + 1] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
      a[4 * i + 2] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
      a[4 * i + 3] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      store(out + i * out_step, _mm256_permute2f128_ps(a[i], a[4 + i], 0x20));
      store(out + (4 + i) * out_step, _mm256_permute2f128_ps(a[i], a[4 + i], 0x31));
    }
  }
};

struct Double {
  using T = double;
  using R = __m256d;
  using I = __m128i;
  static constexpr int L = 4, MR = 6, NV = 2, WM = 6, WV = 2;
  static inline R load(const T* p) { return _mm256_loadu_pd(p); }
  static inline void store(T* p, R a) { _mm256_storeu_pd(p, a); }
  static inline R set(T a) { return _mm256_set1_pd(a); }
  static inline R add(R a, R b) { return _mm256_add_pd(a, b); }
  static inline R sub(R a, R b) { return _mm256_sub_pd(a, b); }
  static inline R mul(R a, R b) { return _mm256_mul_pd(a, b); }
  static inline R fma(R a, R b, R c) { return _mm256_fmadd_pd(a, b, c); }
  static inline R fms(R a, R b, R c) { return _mm256_fmsub_pd(a, b, c); }
  static inline R fnma(R a, R b, R c) { return _mm256_fnmadd_pd(a, b, c); }
  static inline R fms_exact(R a, R b, R c) { return fms(a, b, c); }
  static inline R round(R a) { return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static inline R round_half(R a) { return mul(set(0.5), round(add(a, a))); }
  // Only k mod 4 matters; taken off exactly, so that it fits 32 bits for any k.
  static inline I quadrant(R k) { return _mm256_cvtpd_epi32(fnma(set(4), round(mul(k, set(0.25))), k)); }
  static inline I next(I q) { return _mm_add_epi32(q, _mm_set1_epi32(1)); }
  static inline R pick_odd(I q, R even, R odd) {
    return _mm256_blendv_pd(even, odd, _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_cvtepi32_epi64(q), 63)));
  }
  static inline R flip_if(R a, I q) {
    __m256i sign = _mm256_slli_epi64(_mm256_cvtepi32_epi64(_mm_and_si128(q, _mm_set1_epi32(2))), 62);
    return _mm256_xor_pd(a, _mm256_castsi256_pd(sign));
  }
  static inline void transpose(const T* p, int64_t step, T* out, int64_t out_step) {
    for (int i = 0; i < L; i++)
      for (int j = 0; j < L; j++) out[j * out_step + i] = p[i * step + j];
  }
};

#include "../generic/engine.inl.h"

bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const Kernels<float> f32 = kernels<Float>();
const Kernels<double> f64 = kernels<Double>();

}  // namespace
extern const Isa avx2;
const Isa avx2{"avx2", supported, &f32, &f64};
}  // namespace fastsiren

FASTSIREN_TARGET_END
#endif
