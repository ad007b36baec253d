// Values alone: the epilogue turns sums straight into the digits of the next layer, without a detour through planes of
// floats. The operations are those of the general pass, one by one, so a row has the same bits either way.

// A NaN dies in its digits: it is caught in `poison`, which stays NaN.
INLINE __m512i sine_digits(__m512 u, __m512& poison) {
  const __m512 s = sinpi<Lane>(u);
  poison = _mm512_fmadd_ps(s, _mm512_setzero_ps(), poison);
  return to_digits(_mm512_mul_ps(s, _mm512_set1_ps(DIGITS)));
}

INLINE __m512 phase(const Matrix& W, const int32_t* s, int64_t row) {
  const __m512 scale = _mm512_set1_ps(W.scale[row] * (1.0f / DIGITS));
  return _mm512_add_ps(_mm512_mul_ps(from_sums(s), scale), _mm512_set1_ps(W.bias[row]));
}

INLINE void first_digits(const Packed<float>& net, const TileArray<Lane>& x, const Digits& out, __m512& poison) {
  for (int64_t g = 0; g < x.groups; g++)
    for (int64_t f = 0; f < net.width[0]; f += 4) {
      __m512i d[4];
      for (int64_t i = 0; i < 4; i++) {
        float u[Lane::L];
        if (f + i < net.width[0]) first_phase<Lane>(net, f + i, x.at(0, g), u);
        d[i] = f + i < net.width[0] ? sine_digits(_mm512_loadu_ps(u), poison) : _mm512_setzero_si512();
      }
      put_quad(d, out.at(0, g) + quad_at(f));
    }
}

INLINE bool all_usable(const Packed<float>& net) {
  for (int64_t l = 1; l < net.sines; l++)
    if (!tables_of(net).up[l].usable) return false;
  return true;
}

// From coordinates x to the last sine layer in `out`; `even` and `odd` are scratch. False when a NaN came up on the
// way.
template <class Unit>
INLINE bool values(Unit& t, const Packed<float>& net, const TileArray<Lane>& x, const Digits& even, const Digits& odd,
                   int32_t* sums, const Planes<float>& out) {
  __m512 poison = _mm512_setzero_ps();
  first_digits(net, x, even.of(net.width[0]), poison);
  for (int64_t l = 1; l < net.sines; l++) {
    const Matrix& W = tables_of(net).up[l];
    const Digits from = (l % 2 ? even : odd).of(net.width[l - 1]), to = (l % 2 ? odd : even).of(net.width[l]);
    const Operand A{W.digits, 0, (net.width[l] + 15) / 16, from.k_tiles};
    const bool last = l == net.sines - 1;
    tile_products(t, A, from.operand(), 1, sums, [&](const int32_t* s, int64_t quad, int64_t block, int64_t g) {
      const int64_t row = block * 16 + quad * 4;
      s += quad * 64;
      if (last) {
        UNROLL(4)
        for (int64_t i = 0; i < 4; i++)
          _mm512_storeu_ps(out.at(0, g) + (row + i) * 16, sinpi<Lane>(phase(W, s + i * 16, row + i)));
        return;
      }
      __m512i d[4];
      UNROLL(4)
      for (int64_t i = 0; i < 4; i++) d[i] = sine_digits(phase(W, s + i * 16, row + i), poison);
      put_quad(d, to.at(0, g) + quad_at(row));
    });
  }
  return !_mm512_cmp_ps_mask(poison, poison, _CMP_UNORD_Q);
}
