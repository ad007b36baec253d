// Numbers as three signed base-256 digits. |v| <= scale becomes x = rint(v DIGITS / scale), |x| < 2^23, x = 65536 d2 +
// 256 d1 + d0 with every d in [-128, 127]. Balanced digits make the products that are left out zero-mean.

constexpr double MOST = 8355711.0;    // 0x7F7F7F, the largest number
constexpr float DIGITS = 8355000.0f;  // leaves room for what rounding adds to a sine
// Numbers of another size than these keep to fp32: a scale next to the ends of the range would lose bits.
constexpr float LEAST = 1e-25f, LARGEST = 1e25f;

// Numbers that share a scale lose bits to the largest of them: past this ratio of the largest to the root of their mean
// square fp32 serves. Measured where all rows of all hidden matrices are that uneven: there the error passes 1.5 times
// that of plain fp32.
constexpr float UNEVEN = 10.0f;

// A group of points is a block of 16 columns.
struct Lane : Float {
  static constexpr int NV = 1;
};
template <class U>
struct OnUnit : Lane {
  using Unit = U;
};

INLINE __m512i balanced(__m512i x) {
  const __m512i half = _mm512_set1_epi32(0x808080);
  return _mm512_xor_si512(_mm512_add_epi32(x, half), half);
}
INLINE __m512i to_digits(__m512 scaled) {
  return balanced(_mm512_cvtps_epi32(scaled));
}

// The three sums of a row of a block, as one number in units of 2^16.
INLINE __m512 from_sums(const int32_t* s) {
  const __m512 unit = _mm512_set1_ps(256.0f);
  const __m512 high = _mm512_cvtepi32_ps(_mm512_load_si512(s)), mid = _mm512_cvtepi32_ps(_mm512_load_si512(s + 256));
  return _mm512_fmadd_ps(_mm512_fmadd_ps(high, unit, mid), unit, _mm512_cvtepi32_ps(_mm512_load_si512(s + 512)));
}
constexpr float SUM_UNIT = 65536.0f;

struct Bytes64 {
  alignas(64) uint8_t at[64];
};
struct Shuffles {
  Bytes64 low, high;            // put_quad
  Bytes64 first[2], second[2];  // turn_quads
};
constexpr Shuffles make_shuffles() {
  Shuffles s{};
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 2; j++) {
      s.low.at[4 * i + j] = static_cast<uint8_t>(64 * j + 4 * i);
      s.low.at[4 * i + 2 + j] = static_cast<uint8_t>(64 * j + 4 * i + 1);
      s.high.at[4 * i + j] = static_cast<uint8_t>(64 * j + 4 * i + 2);
    }
  for (int i = 0; i < 64; i++) {
    const int quad = i / 32, column = i % 32 / 4, point = i % 4;
    for (int part = 0; part < 2; part++)
      s.first[part].at[i] =
          static_cast<uint8_t>((column < 4 ? 0 : 64) + (4 * (quad + 2 * part) + point) * 4 + column % 4);
  }
  return s;
}
constexpr Shuffles SHUFFLES = make_shuffles();
INLINE __m512i indices(const Bytes64& b) {
  return _mm512_load_si512(b.at);
}

// Digits of four features of 16 points into their row of three right-hand tiles: [16 points][4 features].
INLINE void put_quad(const __m512i* x, int8_t* out) {
  const __m512i low = indices(SHUFFLES.low), high = indices(SHUFFLES.high);
  const __m512i low01 = _mm512_permutex2var_epi8(x[0], low, x[1]), low23 = _mm512_permutex2var_epi8(x[2], low, x[3]);
  const __m512i high01 = _mm512_permutex2var_epi8(x[0], high, x[1]),
                high23 = _mm512_permutex2var_epi8(x[2], high, x[3]);
  const __mmask32 odd = 0xAAAAAAAA;
  _mm512_store_si512(out, _mm512_mask_blend_epi16(odd, high01, _mm512_slli_epi32(high23, 16)));
  _mm512_store_si512(out + TILE, _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(low01, 16), low23));
  _mm512_store_si512(out + 2 * TILE, _mm512_mask_blend_epi16(odd, low01, _mm512_slli_epi32(low23, 16)));
}

// Where a quad of features starting at f stands in a stack of right-hand tiles.
INLINE int64_t quad_at(int64_t f) {
  return f / 64 * STACK + f % 64 / 4 * 64;
}

// Digits of a tile of points as right operand: channel c of group g is one block. `unit` [channel][group][16]: what a
// digit of weight one is worth, per point, so that rows never depend on their neighbours. Points in `plain` (a bit
// each) do not fit into digits: they are not finite, or of a size that a scale cannot hold. Their unit is NaN and their
// products are made in fp32.
struct Digits {
  int8_t* base;
  float* unit;
  uint16_t* plain;
  int64_t groups, k_tiles;

  INLINE int8_t* at(int64_t c, int64_t g) const { return base + (c * groups + g) * k_tiles * STACK; }
  INLINE float* unit_at(int64_t c, int64_t g) const { return unit + (c * groups + g) * 16; }
  INLINE uint16_t plain_at(int64_t c, int64_t g) const { return plain[c * groups + g]; }
  // The same memory for fewer features.
  INLINE Digits of(int64_t rows) const { return {base, unit, plain, groups, (rows + 63) / 64}; }
  INLINE Operand operand() const { return {base, groups * k_tiles * STACK, groups, k_tiles}; }
};

INLINE Digits take_digits(Arena& arena, int64_t channels, int64_t groups, int64_t rows) {
  Digits d{nullptr, nullptr, nullptr, groups, (rows + 63) / 64};
  d.base = arena.take<int8_t>(channels * groups * d.k_tiles * STACK);
  d.unit = arena.take<float>(channels * groups * 16);
  d.plain = arena.take<uint16_t>(channels * groups);
  return d;
}

// Greatest |v| as bits: as an integer NaN is above Inf and Inf above all numbers, so nothing is lost.
INLINE __m512i raise(__m512i most, __m512 v) {
  return _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7FFFFFFF)));
}
INLINE float bits_as_float(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
INLINE __mmask16 used(__m512 most) {
  return _mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_NEQ_UQ);
}
INLINE __mmask16 unfit(__m512 most) {
  return _mm512_cmp_ps_mask(most, _mm512_set1_ps(LARGEST), _CMP_NLE_UQ) |
         (_mm512_cmp_ps_mask(most, _mm512_set1_ps(LEAST), _CMP_LT_OQ) & used(most));
}

INLINE __m512 largest(const float* plane, int64_t rows) {
  __m512i bits = _mm512_setzero_si512();
  for (int64_t f = 0; f < rows; f++) bits = raise(bits, _mm512_loadu_ps(plane + f * 16));
  return _mm512_castsi512_ps(bits);
}

// One channel of one group, [rows][16], to digits. A sine needs no scale of its own, and fits unless it is NaN.
inline void quantise_block(const float* plane, int64_t rows, bool sine, int8_t* out, float* unit, uint16_t* plain) {
  const __m512 most = largest(plane, rows), digits = _mm512_set1_ps(DIGITS);
  const __m512 range = sine ? _mm512_set1_ps(1.0f) : _mm512_max_ps(most, _mm512_set1_ps(LEAST));
  const __m512 scale = _mm512_div_ps(digits, range);
  __m512 square = _mm512_setzero_ps();
  for (int64_t f = 0; f < rows; f += 4) {
    __m512i x[4];
    // Rows past the end are read too, and multiplied by zero weights.
    UNROLL(4)
    for (int i = 0; i < 4; i++) {
      const __m512 v = _mm512_mul_ps(_mm512_loadu_ps(plane + (f + i) * 16), scale);
      if (f + i < rows) square = _mm512_fmadd_ps(v, v, square);
      x[i] = to_digits(v);
    }
    put_quad(x, out + quad_at(f));
  }
  const __m512 bound = _mm512_mul_ps(square, _mm512_set1_ps(UNEVEN * UNEVEN / static_cast<float>(rows)));
  const __mmask16 uneven = _mm512_cmp_ps_mask(bound, _mm512_set1_ps(DIGITS * DIGITS), _CMP_LT_OQ) & used(most);
  const __mmask16 lost = sine ? _mm512_cmp_ps_mask(most, most, _CMP_UNORD_Q) : unfit(most) | uneven;
  _mm512_storeu_ps(unit, _mm512_mask_blend_ps(lost, _mm512_div_ps(range, digits), _mm512_set1_ps(NAN)));
  *plain = lost;
}

// All channels; the first `sines` of them hold sines.
inline void quantise(const Planes<float>& planes, int64_t rows, int64_t channels, int64_t sines, const Digits& d) {
  for (int64_t c = 0; c < channels; c++)
    for (int64_t g = 0; g < planes.groups; g++)
      quantise_block(planes.at(c, g), rows, c < sines, d.at(c, g), d.unit_at(c, g), d.plain + c * d.groups + g);
}

// Digits with points in columns, as products over features read them, to digits with points in k, as sums over points
// do: [block of 16 features][64 points][digit][16 quads of points][16 features][4].
inline void turn_quads(const Digits& d, int64_t c, int64_t rows, int8_t* out) {
  const __m512i lower = indices(SHUFFLES.first[0]), upper = indices(SHUFFLES.first[1]);
  for (int64_t f = 0; f < rows; f += 16)
    for (int64_t g = 0; g < d.groups; g++)
      for (int64_t p = 0; p < PLANES; p++) {
        const int8_t* s = d.at(c, g) + quad_at(f) + p * TILE;
        int8_t* o = out + ((f / 16 * (d.groups / 4) + g / 4) * PLANES + p) * TILE + g % 4 * 256;
        const __m512i v0 = _mm512_load_si512(s), v1 = _mm512_load_si512(s + 64), v2 = _mm512_load_si512(s + 128);
        const __m512i v3 = _mm512_load_si512(s + 192);
        const __m512i a = _mm512_permutex2var_epi8(v0, lower, v1), b = _mm512_permutex2var_epi8(v2, lower, v3);
        const __m512i e = _mm512_permutex2var_epi8(v0, upper, v1), h = _mm512_permutex2var_epi8(v2, upper, v3);
        _mm512_store_si512(o, _mm512_shuffle_i64x2(a, b, 0x44));
        _mm512_store_si512(o + 64, _mm512_shuffle_i64x2(a, b, 0xEE));
        _mm512_store_si512(o + 128, _mm512_shuffle_i64x2(e, h, 0x44));
        _mm512_store_si512(o + 192, _mm512_shuffle_i64x2(e, h, 0xEE));
      }
}

// Sixteen numbers as three times sixteen bytes, a tile apart.
INLINE void put_row(__m512i x, int8_t* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(_mm512_srai_epi32(x, 16)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + TILE), _mm512_cvtepi32_epi8(_mm512_srai_epi32(x, 8)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * TILE), _mm512_cvtepi32_epi8(x));
}
