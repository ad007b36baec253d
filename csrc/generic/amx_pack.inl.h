// Weights as digits, beside the fp32 panels: left operands of the products over features.

// The hidden matrix of one layer, or its transpose. One scale per row.
struct Matrix {
  const int8_t* digits;  // [block of 16 rows][k tile][digit][16 rows][64 k], zero padded
  const float* scale;    // [rows]: from sums of products, in units of SUM_UNIT, to
                         // half turns
  const float* bias;     // [rows] in half turns; null for a transpose
  bool usable;
};

struct Tables {  // at the start of Packed::extra: [layer]
  Matrix *up, *down;
};

// Below this width padding to whole tiles costs more than they win.
constexpr int64_t NARROW = 32;
// Sums of products of digits stay below 2^31.
constexpr int64_t WIDE = 32768;

INLINE bool worth(int64_t a, int64_t b) {
  return a >= NARROW && b >= NARROW && a <= WIDE && b <= WIDE;
}

struct PackPlan {  // one matrix in the block of memory
  int8_t* digits;
  float *scale, *bias, *rows;
  int64_t M, K, padded;
};

INLINE PackPlan plan_matrix(Arena& arena, const Affine<float>& a, bool down) {
  PackPlan p{};
  p.M = down ? a.in : a.out, p.K = down ? a.out : a.in, p.padded = (p.K + 63) / 64 * 64;
  const int64_t blocks = (p.M + 15) / 16;
  p.digits = arena.take<int8_t>(blocks * 16 * p.padded * PLANES);
  p.scale = arena.take<float>(blocks * 16);
  p.bias = arena.take<float>(blocks * 16);
  p.rows = arena.take<float>(16 * p.padded);
  return p;
}

// 16 rows from row r, padded with zeros.
INLINE void copy_rows(const Affine<float>& a, bool down, int64_t r, const PackPlan& p) {
  std::memset(p.rows, 0, static_cast<size_t>(16 * p.padded) * sizeof(float));
  const int64_t n = p.M - r < 16 ? p.M - r : 16;
  for (int64_t k = 0; down && k < p.K; k++)
    for (int64_t m = 0; m < n; m++) p.rows[m * p.padded + k] = a.W[k * a.in + r + m];
  for (int64_t m = 0; !down && m < n; m++)
    std::memcpy(p.rows + m * p.padded, a.W + (r + m) * a.in, static_cast<size_t>(p.K) * sizeof(float));
}

// In double, so that a digit is wrong by half a unit at most.
INLINE __m512i scaled_digits(const float* w, double scale) {
  const __m512 v = _mm512_loadu_ps(w);
  const __m512d s = _mm512_set1_pd(scale), low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
  const __m512i x = _mm512_castsi256_si512(_mm512_cvtpd_epi32(_mm512_mul_pd(low, s)));
  return balanced(_mm512_inserti32x8(x, _mm512_cvtpd_epi32(_mm512_mul_pd(high, s)), 1));
}

// Digits of one row; false when fp32 must serve: it is not finite, or so uneven that its small weights would lose their
// bits.
INLINE bool pack_row(const float* w, const PackPlan& p, double factor, float* scale, int8_t* out) {
  __m512i bits = _mm512_setzero_si512();
  __m512d sum = _mm512_setzero_pd();
  for (int64_t k = 0; k < p.padded; k += 8) {
    const __m256 v = _mm256_loadu_ps(w + k);
    const __m512d d = _mm512_cvtps_pd(v);
    sum = _mm512_fmadd_pd(d, d, sum);
    bits = raise(bits, _mm512_castps256_ps512(v));
  }
  const double most = bits_as_float(_mm512_reduce_max_epu32(_mm512_maskz_mov_epi32(0xFF, bits)));
  const double rms = std::sqrt(_mm512_reduce_add_pd(sum) / static_cast<double>(p.K)),
               unit = most / MOST * SUM_UNIT * factor;
  const double size = std::fabs(unit);
  const bool fits = most == 0 || (rms * UNEVEN >= most && size > 1e-12 && size < 1e12);
  *scale = fits ? static_cast<float>(unit) : 0.0f;
  for (int64_t k = 0; k < p.padded; k += 16)
    put_row(scaled_digits(w + k, most > 0 ? MOST / most : 0), out + k / 64 * STACK + k % 64);
  return fits;
}

INLINE Matrix pack_matrix(Arena& arena, const Affine<float>& a, bool down, bool fill) {
  const PackPlan p = plan_matrix(arena, a, down);
  Matrix m{p.digits, p.scale, down ? nullptr : p.bias, worth(a.in, a.out)};
  const double factor = a.omega / PI;
  for (int64_t r = 0; fill && m.usable && r < p.M; r += 16) {
    copy_rows(a, down, r, p);
    for (int64_t i = 0; i < 16; i++) {
      p.bias[r + i] = r + i < p.M && !down ? static_cast<float>(a.b[r + i] * factor) : 0.0f;
      m.usable &= pack_row(p.rows + i * p.padded, p, factor, p.scale + r + i,
                           p.digits + r / 16 * (p.padded / 64) * STACK + i * 64);
    }
  }
  return m;
}

// maps: `sines` sine layers. The work is shared by threads: thread `id` packs every threads-th matrix.
inline size_t pack_digits(const Affine<float>* maps, int64_t sines, bool down, void* out, int64_t id, int64_t threads) {
  Arena arena{static_cast<char*>(out), 0};
  Tables* tables = arena.take<Tables>(1);
  Matrix *up = arena.take<Matrix>(sines), *transposed = arena.take<Matrix>(sines);
  if (out && id == 0) *tables = {up, transposed};
  for (int64_t l = 0; l < sines; l++)
    for (int64_t d = 0; d < (down ? 2 : 1); d++) {
      const bool mine = out && l > 0 && (2 * l + d) % threads == id;
      const Matrix m = l > 0 ? pack_matrix(arena, maps[l], d == 1, mine) : Matrix{};
      if (out && (mine || (l == 0 && id == 0))) (d ? transposed : up)[l] = m;
    }
  return arena.used;
}

INLINE const Tables& tables_of(const Packed<float>& net) {
  return *static_cast<const Tables*>(net.extra);
}

// Whether any product of this network can be made of digits.
INLINE bool covered(const Packed<float>& net) {
  for (int64_t l = 1; l < net.sines; l++)
    if (tables_of(net).up[l].usable) return true;
  return false;
}
