// Vectors of AVX-512: 16 floats or 8 doubles, 32 registers: 8 x 3 accumulators, 3 of points, 1 broadcast weight.

struct Float {
  using T = float;
  using R = __m512;
  using I = __m512i;
  static constexpr int L = 16, MR = 8, NV = 3, WM = 6, WV = 4;
  static inline R load(const T* p) { return _mm512_loadu_ps(p); }
  static inline void store(T* p, R a) { _mm512_storeu_ps(p, a); }
  static inline R set(T a) { return _mm512_set1_ps(a); }
  static inline R add(R a, R b) { return _mm512_add_ps(a, b); }
  static inline R sub(R a, R b) { return _mm512_sub_ps(a, b); }
  static inline R mul(R a, R b) { return _mm512_mul_ps(a, b); }
  static inline R fma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
  static inline R fms(R a, R b, R c) { return _mm512_fmsub_ps(a, b, c); }
  static inline R fnma(R a, R b, R c) { return _mm512_fnmadd_ps(a, b, c); }
  static inline R fms_exact(R a, R b, R c) { return fms(a, b, c); }
  static inline R round(R a) { return _mm512_roundscale_ps(a, 0); }
  static inline R round_half(R a) { return _mm512_roundscale_ps(a, 0x10); }
  static inline I quadrant(R k) { return _mm512_cvtps_epi32(k); }
  static inline I next(I q) { return _mm512_add_epi32(q, _mm512_set1_epi32(1)); }
  static inline R pick_odd(I q, R even, R odd) {
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(q, _mm512_set1_epi32(1)), even, odd);
  }
  static inline R flip_if(R a, I q) {
    // a ^ (q << 30 & sign)
    const I sign = _mm512_set1_epi32(INT32_MIN), shifted = _mm512_slli_epi32(q, 30);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(a), shifted, sign, 0x78));
  }
  // 16 rows of 16 floats, `step` apart, to 16 columns `out_step` apart
  static inline void transpose(const T* p, int64_t step, T* out, int64_t out_step) {
    R a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = load(p + i * step);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
      b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      a[4 * i] = _mm512_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
      a[4 * i + 1] = _mm512_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
      a[4 * i + 2] = _mm512_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
      a[4 * i + 3] = _mm512_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      b[i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88);
      b[4 + i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
      b[8 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
      b[12 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      store(out + i * out_step, _mm512_shuffle_f32x4(b[i], b[8 + i], 0x88));
      store(out + (8 + i) * out_step, _mm512_shuffle_f32x4(b[i], b[8 + i], 0xdd));
      store(out + (4 + i) * out_step, _mm512_shuffle_f32x4(b[4 + i], b[12 + i], 0x88));
      store(out + (12 + i) * out_step, _mm512_shuffle_f32x4(b[4 + i], b[12 + i], 0xdd));
    }
  }
};

struct Double {
  using T = double;
  using R = __m512d;
  using I = __m512i;
  static constexpr int L = 8, MR = 8, NV = 3, WM = 6, WV = 4;
  static inline R load(const T* p) { return _mm512_loadu_pd(p); }
  static inline void store(T* p, R a) { _mm512_storeu_pd(p, a); }
  static inline R set(T a) { return _mm512_set1_pd(a); }
  static inline R add(R a, R b) { return _mm512_add_pd(a, b); }
  static inline R sub(R a, R b) { return _mm512_sub_pd(a, b); }
  static inline R mul(R a, R b) { return _mm512_mul_pd(a, b); }
  static inline R fma(R a, R b, R c) { return _mm512_fmadd_pd(a, b, c); }
  static inline R fms(R a, R b, R c) { return _mm512_fmsub_pd(a, b, c); }
  static inline R fnma(R a, R b, R c) { return _mm512_fnmadd_pd(a, b, c); }
  static inline R fms_exact(R a, R b, R c) { return fms(a, b, c); }
  static inline R round(R a) { return _mm512_roundscale_pd(a, 0); }
  static inline R round_half(R a) { return _mm512_roundscale_pd(a, 0x10); }
  static inline I quadrant(R k) { return _mm512_cvtpd_epi64(k); }
  static inline I next(I q) { return _mm512_add_epi64(q, _mm512_set1_epi64(1)); }
  static inline R pick_odd(I q, R even, R odd) {
    return _mm512_mask_blend_pd(_mm512_test_epi64_mask(q, _mm512_set1_epi64(1)), even, odd);
  }
  static inline R flip_if(R a, I q) {
    const I sign = _mm512_set1_epi64(INT64_MIN), shifted = _mm512_slli_epi64(q, 62);
    return _mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_castpd_si512(a), shifted, sign, 0x78));
  }
  static inline void transpose(const T* p, int64_t step, T* out, int64_t out_step) {
    for (int i = 0; i < L; i++)
      for (int j = 0; j < L; j++) out[j * out_step + i] = p[i * step + j];
  }
};
