// The two matrix products of every pass, made of digits; where digits do not reach fp32 serves: a whole layer whose
// weights are too uneven, single points whose numbers are not finite or of an extreme size, and channels of a tile
// whose cotangents are too uneven.

// Groups of a tile. Forward they share one pass over the weights. In training their points are a multiple of the 64
// that one tile of a sum over points takes: enough to pay for the traffic of its sums, few enough for the second-level
// cache.
INLINE int64_t groups_of(int64_t channels, bool training) {
  return training ? (channels == 1 ? 12 : channels == 2 ? 8 : 4) : (channels == 1 ? 2 : 1);
}
static_assert(SEGMENT_POINTS % (12 * 16) == 0 && SEGMENT_POINTS % (8 * 16) == 0 && BLOCK_POINTS % (2 * 16) == 0,
              "tiles must divide segments and blocks");

template <class V>
struct Products {
  using Tiles = typename V::Unit;
  const Packed<float>* net;
  float *z, *repaired;   // [channel][MR][16]; [channel][MR][16]
  int32_t* sums;         // [2][channel][SUMS]
  int8_t *left, *right;  // operands of sums over points
  int64_t left_size, right_size;
  float *share, *range;  // [channel][max_width]; [group][16]

  // z is the scratch that epilogues read their products from. `points`: groups of the sums over points, 0 for a forward
  // pass.
  void plan(Arena& arena, const Packed<float>& packed, float* scratch, int64_t channels, int64_t points) {
    net = &packed, z = scratch;
    const int64_t blocks = (packed.max_width + 15) / 16;
    repaired = arena.take<float>(channels * Lane::MR * 16);
    sums = arena.take<int32_t>(2 * channels * SUMS);
    share = arena.take<float>(channels * packed.max_width);
    range = arena.take<float>(points * 16);
    left_size = right_size = blocks * (points / 4) * STACK;
    left = arena.take<int8_t>(channels * left_size);
    right = arena.take<int8_t>(channels * right_size);
  }

  // finish(row, rows, g) for every few rows of W h (or W^T h), products in z. `in` holds what `digits` were made of.
  template <class Finish>
  INLINE void up(Tiles& t, int64_t l, const Planes<float>& in, const Digits& digits, int64_t channels,
                 Finish&& finish) {
    product(t, tables_of(*net).up[l], net->up[l], net->width[l], net->width[l - 1], in, digits, channels, finish);
  }
  template <class Finish>
  INLINE void down(Tiles& t, int64_t l, const Planes<float>& in, const Digits& digits, int64_t channels,
                   Finish&& finish) {
    product(t, tables_of(*net).down[l], net->down[l], net->width[l - 1], net->width[l], in, digits, channels, finish);
  }

  template <class Finish>
  INLINE void product(Tiles& t, const Matrix& W, const float* panels, int64_t rows, int64_t K, const Planes<float>& in,
                      const Digits& digits, int64_t channels, Finish&& finish) {
    if (!W.usable) return sweep<Lane, Lane::MR>(panels, rows, K, in, channels, z, finish);
    const Operand A{W.digits, 0, (rows + 15) / 16, digits.k_tiles};
    tile_products(t, A, digits.operand(), channels, sums,
                  [&](const int32_t* s, int64_t quad, int64_t block, int64_t g) {
                    const int64_t row = block * 16 + quad * 4, n = rows - row < 4 ? rows - row : 4;
                    if (n <= 0) return;
                    for (int64_t c = 0; c < channels; c++) {
                      const __m512 unit = _mm512_loadu_ps(digits.unit_at(c, g));
                      UNROLL(4)
                      for (int64_t i = 0; i < 4; i++) {
                        const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(W.scale[row + i]), unit);
                        _mm512_storeu_ps(z + (c * Lane::MR + i) * 16,
                                         _mm512_mul_ps(from_sums(s + c * SUMS + (quad * 4 + i) * 16), scale));
                      }
                      if (digits.plain_at(c, g)) repair(panels, row, K, in.at(c, g), c, digits.plain_at(c, g));
                    }
                    finish(row, n, g);
                  });
  }

  // The points of `plain` in fp32, from the panel that holds these rows.
  __attribute__((noinline)) void repair(const float* panels, int64_t row, int64_t K, const float* plane, int64_t c,
                                        uint16_t plain) {
    float* r = repaired + c * Lane::MR * 16;
    if (row % Lane::MR == 0) multiply<Lane, Lane::MR>(panels + row * K, plane, K, r);
    for (int64_t i = 0; i < 4; i++) {
      float* o = z + (c * Lane::MR + i) * 16;
      _mm512_storeu_ps(o,
                       _mm512_mask_blend_ps(plain, _mm512_loadu_ps(o), _mm512_loadu_ps(r + (row % Lane::MR + i) * 16)));
    }
  }

  // Gradient of W_l: sums over channels and points of left [width l] times right [width l - 1], `digits` those of
  // right.
  void weight(Tiles& t, int64_t l, const Planes<float>& rows, const Planes<float>& columns, const Digits& digits,
              int64_t channels, Gradient<Lane>& gradient) {
    const int64_t M = net->width[l], K = net->width[l - 1], stride = gradient.layout->stride[l], wide = net->max_width;
    if (!gradient.layout->weights || !worth(M, K)) return gradient.add_weight(l, rows, columns, channels);
    float* dW = static_cast<float*>(gradient.sums.values) + gradient.layout->weight[l];
    for (int64_t c = 0; c < channels; c++) {
      turn_quads(digits, c, K, right + c * right_size);
      if (put_left(rows, c, M, digits)) continue;
      std::memset(share + c * wide, 0, static_cast<size_t>(M) * sizeof(float));
      const Planes<float> a{rows.at(c, 0), rows.size, rows.groups}, b{columns.at(c, 0), columns.size, columns.groups};
      weight_grad<Lane>(a, M, b, K, 1, gradient.transposed, dW, stride);
    }
    const int64_t k_tiles = rows.groups / 4;
    const Operand A{left, left_size, (M + 15) / 16, k_tiles}, B{right, right_size, (K + 15) / 16, k_tiles};
    tile_products(t, A, B, channels, sums, [&](const int32_t* s, int64_t quad, int64_t a, int64_t b) {
      for (int64_t i = quad * 4; i < quad * 4 + 4 && a * 16 + i < M; i++) {
        float* d = dW + (a * 16 + i) * stride + b * 16;
        __m512 sum = _mm512_loadu_ps(d);
        for (int64_t c = 0; c < channels; c++)
          sum = _mm512_fmadd_ps(from_sums(s + c * SUMS + i * 16), _mm512_set1_ps(share[c * wide + a * 16 + i]), sum);
        _mm512_storeu_ps(d, sum);
      }
    });
  }

  // Channel c of the left operand [block of 16 rows][64 points][digit][16 rows][64]. Points are summed, so all of a row
  // share one scale, and each brings the unit of the right operand's digits with it. A row is at most as uneven as one
  // point among those of a tile, and that costs less than the rounding of an fp32 sum. False when fp32 must serve:
  // something is not finite or of an extreme size.
  bool put_left(const Planes<float>& rows, int64_t c, int64_t M, const Digits& digits) {
    const int64_t groups = rows.groups;
    const __m512 full = _mm512_set1_ps(DIGITS);
    for (int64_t g = 0; g < groups; g++)
      _mm512_storeu_ps(range + g * 16, _mm512_mul_ps(_mm512_loadu_ps(digits.unit_at(c, g)), full));
    for (int64_t f = 0; f < M; f++) {
      __m512i bits = _mm512_setzero_si512();
      for (int64_t g = 0; g < groups; g++) bits = raise(bits, scaled(rows.at(c, g) + f * 16, g));
      const float most = bits_as_float(_mm512_reduce_max_epu32(bits));
      if (most != 0 && !(most > LEAST && most < LARGEST)) return false;
      share[c * net->max_width + f] = most / (DIGITS * DIGITS) * SUM_UNIT;
      const __m512 scale = _mm512_set1_ps(most > 0 ? DIGITS / most : 0.0f);
      int8_t* out = left + c * left_size + f / 16 * (groups / 4) * STACK + f % 16 * 64;
      for (int64_t g = 0; g < groups; g++)
        put_row(to_digits(_mm512_mul_ps(scaled(rows.at(c, g) + f * 16, g), scale)), out + g / 4 * STACK + g % 4 * 16);
    }
    return true;
  }
  INLINE __m512 scaled(const float* p, int64_t g) const {
    return _mm512_mul_ps(_mm512_loadu_ps(p), _mm512_loadu_ps(range + g * 16));
  }
};
