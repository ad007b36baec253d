// Engine T of kernels/README.md: value, K tangents and R collapsed second-order channels in one sweep, and its adjoint.
// In half turns: u = theta / pi, p and q likewise; c stands for pi cos(pi u), so that t = c p and s = c q - pi^2 h U.

struct Shape {  // channels: 0 value, 1 .. K tangents, 1 + K .. K + R second order
  int64_t K, R, n_terms;
  const Term* terms;
  INLINE int64_t channels() const { return 1 + K + R; }
};

// Counts known to the compiler, for the shapes that most calls have; any other shape runs the same code with counts
// read at run time.
template <int64_t K_, int64_t R_>
struct Counts {
  static INLINE int64_t K(const Shape&) { return K_; }
  static INLINE int64_t R(const Shape&) { return R_; }
};
struct AnyCounts {
  static INLINE int64_t K(const Shape& s) { return s.K; }
  static INLINE int64_t R(const Shape& s) { return s.R; }
};
template <class Call>
INLINE void with_counts(const Shape& s, Call&& call) {
  if (s.K == 0 && s.R == 0) return call(Counts<0, 0>{});
  if (s.K == 1 && s.R == 0) return call(Counts<1, 0>{});
  if (s.K == 2 && s.R == 1) return call(Counts<2, 1>{});
  if (s.K == 3 && s.R == 1) return call(Counts<3, 1>{});
  call(AnyCounts{});
}

// (2): the form r of the slopes p, at one vector; p [k] stands at slope + k * step.
template <class V>
INLINE typename V::R form(const Shape& s, int64_t r, const typename V::T* slope, int64_t step,
                          const typename V::T* coef) {
  typename V::R u = V::set(0);
  for (int64_t t = 0; t < s.n_terms; t++) {
    if (s.terms[t].form != r) continue;
    typename V::R pp = V::mul(V::load(slope + s.terms[t].k * step), V::load(slope + s.terms[t].j * step));
    u = V::fma(V::load(coef + t * PT<V>), pp, u);
  }
  return u;
}

// sum over terms of form r of d(p_k p_j)/dp_i, i.e. twice the i-th row of the form times p
template <class V>
INLINE typename V::R form_slope(const Shape& s, int64_t r, int64_t i, const typename V::T* slope, int64_t step,
                                const typename V::T* coef) {
  typename V::R d = V::set(0);
  for (int64_t t = 0; t < s.n_terms; t++) {
    const Term& term = s.terms[t];
    if (term.form != r) continue;
    if (term.k == i) d = V::fma(V::load(coef + t * PT<V>), V::load(slope + term.j * step), d);
    if (term.j == i) d = V::fma(V::load(coef + t * PT<V>), V::load(slope + term.k * step), d);
  }
  return d;
}

// (1) to (3) on `rows` units from row: products in z [channel][MR][PT] to the next layer's channels, and what the
// adjoint needs: saved channel 0 is c, then p^k and q^r.
template <class V, bool SAVE, class Count>
NOINLINE void activate_counted(const Shape& s, const typename V::T* z, const typename V::T* bias, int64_t row,
                               int64_t rows, const typename V::T* coef, Planes<typename V::T> out,
                               Planes<typename V::T> saved, int64_t g) {
  using T = typename V::T;
  constexpr int64_t ZC = V::MR * PT<V>;
  const int64_t K = Count::K(s), R = Count::R(s);
  for (int64_t i = 0; i < rows; i++) {
    for (int v = 0; v < V::NV; v++) {
      const T* zi = z + (i * V::NV + v) * V::L;
      const int64_t o = ((row + i) * V::NV + v) * V::L;
      typename V::R u = V::load(zi), h, c;
      if (bias) u = V::add(u, V::set(bias[row + i]));
      if (!SAVE && K == 0 && R == 0) {
        V::store(out.at(0, g) + o, sinpi<V>(u));
        continue;
      }
      sincospi<V>(u, h, c);
      c = V::mul(c, V::set(T(PI)));
      V::store(out.at(0, g) + o, h);
      if (SAVE) V::store(saved.at(0, g) + o, c);
      for (int64_t k = 1; k <= K; k++) {
        typename V::R p = V::load(zi + k * ZC);
        V::store(out.at(k, g) + o, V::mul(c, p));
        if (SAVE) V::store(saved.at(k, g) + o, p);
      }
      const typename V::R bend = V::mul(h, V::set(T(PI2)));
      for (int64_t r = 0; r < R; r++) {
        typename V::R q = V::load(zi + (1 + K + r) * ZC), U = form<V>(s, r, zi + ZC, ZC, coef + v * V::L);
        V::store(out.at(1 + K + r, g) + o, V::fms(c, q, V::mul(bend, U)));
        if (SAVE) V::store(saved.at(1 + K + r, g) + o, q);
      }
    }
  }
}

template <class V, bool SAVE>
INLINE void activate(const Shape& s, const typename V::T* z, const typename V::T* bias, int64_t row, int64_t rows,
                     const typename V::T* coef, const Planes<typename V::T>& out, const Planes<typename V::T>& saved,
                     int64_t g) {
  with_counts(
      s, [&](auto count) { activate_counted<V, SAVE, decltype(count)>(s, z, bias, row, rows, coef, out, saved, g); });
}

// (6) to (9): cotangents of a sine layer's channels in z [channel][MR][PT] to those of its phases. M_bar [terms][PT]
// when wanted.
template <class V, class Count>
NOINLINE void activate_bwd_counted(const Shape& s, const typename V::T* z, int64_t row, int64_t rows,
                                   const typename V::T* coef, Planes<typename V::T> hidden, Planes<typename V::T> saved,
                                   Planes<typename V::T> left, typename V::T* M_bar, int64_t g) {
  using T = typename V::T;
  constexpr int64_t ZC = V::MR * PT<V>;
  const int64_t step = saved.groups * saved.size, K = Count::K(s), R = Count::R(s);
  for (int64_t i = 0; i < rows; i++) {
    for (int v = 0; v < V::NV; v++) {
      const T* zi = z + (i * V::NV + v) * V::L;
      const int64_t o = ((row + i) * V::NV + v) * V::L;
      const T *slope = saved.at(1, g) + o, *cf = coef + v * V::L;
      const typename V::R c = V::load(saved.at(0, g) + o);
      if (K == 0 && R == 0) {
        V::store(left.at(0, g) + o, V::mul(c, V::load(zi)));
        continue;
      }
      const typename V::R bend = V::mul(V::load(hidden.at(0, g) + o), V::set(T(PI2)));
      typename V::R u = V::mul(c, V::load(zi)), dot = V::set(0), curve = V::set(0);
      for (int64_t k = 0; k < K; k++) {
        typename V::R t_bar = V::load(zi + (1 + k) * ZC), twist = V::set(0);
        dot = V::fma(t_bar, V::load(slope + k * step), dot);
        for (int64_t r = 0; r < R; r++)
          twist = V::fma(V::load(zi + (1 + K + r) * ZC), form_slope<V>(s, r, k, slope, step, cf), twist);
        V::store(left.at(1 + k, g) + o, V::fms(c, t_bar, V::mul(bend, twist)));
      }
      for (int64_t r = 0; r < R; r++) {
        typename V::R s_bar = V::load(zi + (1 + K + r) * ZC);
        dot = V::fma(s_bar, V::load(slope + (K + r) * step), dot);
        curve = V::fma(s_bar, form<V>(s, r, slope, step, cf), curve);
        V::store(left.at(1 + K + r, g) + o, V::mul(c, s_bar));
      }
      u = V::fnma(bend, dot, u);
      if (R) u = V::fnma(V::mul(c, V::set(T(PI2))), curve, u);
      V::store(left.at(0, g) + o, u);
      if (!M_bar) continue;
      for (int64_t t = 0; t < s.n_terms; t++) {
        const Term& term = s.terms[t];
        typename V::R pp = V::mul(V::load(slope + term.k * step), V::load(slope + term.j * step));
        T* m = M_bar + t * PT<V> + v * V::L;
        V::store(m, V::fnma(V::mul(bend, V::load(zi + (1 + K + term.form) * ZC)), pp, V::load(m)));
      }
    }
  }
}

template <class V>
INLINE void activate_bwd(const Shape& s, const typename V::T* z, int64_t row, int64_t rows, const typename V::T* coef,
                         const Planes<typename V::T>& hidden, const Planes<typename V::T>& saved,
                         const Planes<typename V::T>& left, typename V::T* M_bar, int64_t g) {
  with_counts(s, [&](auto count) {
    activate_bwd_counted<V, decltype(count)>(s, z, row, rows, coef, hidden, saved, left, M_bar, g);
  });
}

// Slopes of unit f of the first layer along K directions V (k, g) [D][PT], to out [1 + k][MR][PT]; no second order yet.
template <class V>
INLINE void first_slopes(const Packed<typename V::T>& net, const Shape& s, int64_t f, const TileArray<V>& directions,
                         int64_t g, typename V::T* out) {
  constexpr int64_t ZC = V::MR * PT<V>;
  const int64_t D = net.D, K = s.K, R = s.R;
  const typename V::T* weight = net.first_hi + f * D;
  for (int64_t k = 0; k < K; k++)
    for (int v = 0; v < V::NV; v++) {
      typename V::R p = V::set(0);
      for (int64_t a = 0; a < D; a++)
        p = V::fma(V::set(weight[a]), V::load(directions.at(k, g) + (a * V::NV + v) * V::L), p);
      V::store(out + (1 + k) * ZC + v * V::L, p);
    }
  for (int64_t r = 0; r < R; r++)
    for (int v = 0; v < V::NV; v++) V::store(out + (1 + K + r) * ZC + v * V::L, V::set(0));
}

// The first layer: phases from coordinates, slopes from directions.
template <class V, bool SAVE>
void first_layer(const Packed<typename V::T>& net, const Shape& s, const TileArray<V>& x,
                 const TileArray<V>& directions, const TileArray<V>& coef, typename V::T* z,
                 const Planes<typename V::T>& out, const Planes<typename V::T>& saved) {
  for (int64_t row = 0; row < net.width[0]; row += V::MR) {
    const int64_t rows = net.width[0] - row < V::MR ? net.width[0] - row : V::MR;
    for (int64_t g = 0; g < x.groups; g++) {
      for (int64_t i = 0; i < rows; i++) {
        first_phase<V>(net, row + i, x.at(0, g), z + i * PT<V>);
        first_slopes<V>(net, s, row + i, directions, g, z + i * PT<V>);
      }
      activate<V, SAVE>(s, z, nullptr, row, rows, coef.at(0, g), out, saved, g);
    }
  }
}

// Output layer: tile (channel, g) [O][PT].
template <class V>
void output_layer(const Packed<typename V::T>& net, const Planes<typename V::T>& in, int64_t channels, bool bias,
                  typename V::T* z, const TileArray<V>& out) {
  const int64_t MO = output_rows<V>(net.O);
  output_sweep<V>(net, in, channels, z, [&](int64_t row, int64_t rows, int64_t g) {
    for (int64_t c = 0; c < channels; c++)
      for (int64_t i = 0; i < rows; i++)
        for (int v = 0; v < V::NV; v++) {
          typename V::R y = V::load(z + ((c * MO + i) * V::NV + v) * V::L);
          if (bias && c == 0) y = V::add(y, V::set(net.out_b[row + i]));
          V::store(out.at(c, g) + ((row + i) * V::NV + v) * V::L, y);
        }
  });
}

// Transposed output layer for rows units from row: z (c) [MR][PT] = sum over q of W_out[q] * bar (c, g) [O][PT]
template <class V>
INLINE void output_layer_bwd(const Packed<typename V::T>& net, const TileArray<V>& bar, int64_t channels, int64_t row,
                             int64_t rows, int64_t g, typename V::T* z) {
  const int64_t H = net.width[net.sines - 1], O = net.O;
  for (int64_t c = 0; c < channels; c++) {
    const typename V::T *bars = bar.at(c, g), *weights = net.out_rows + row;
    typename V::T* out = z + c * V::MR * PT<V>;
    for (int64_t i = 0; i < rows; i++, out += PT<V>) {
      typename V::R a[V::NV];
      UNROLL(8)
      for (int v = 0; v < V::NV; v++) a[v] = V::set(0);
      for (int64_t q = 0; q < O; q++) {
        const typename V::R weight = V::set(weights[q * H + i]);
        UNROLL(8)
        for (int v = 0; v < V::NV; v++) a[v] = V::fma(weight, V::load(bars + (q * V::NV + v) * V::L), a[v]);
      }
      UNROLL(8)
      for (int v = 0; v < V::NV; v++) V::store(out + v * V::L, a[v]);
    }
  }
}

// Cotangents of the first layer's inputs: bar (channel) [D][PT] = A_0^T left (channel)
template <class V>
void first_layer_bwd(const Packed<typename V::T>& net, const Planes<typename V::T>& left, int64_t channel0,
                     int64_t channels, const TileArray<V>& bar) {
  for (int64_t c = 0; c < channels; c++)
    for (int64_t g = 0; g < left.groups; g++)
      for (int64_t i = 0; i < net.D; i++)
        contract<V>(left.at(channel0 + c, g), net.first_hi + i, net.D, net.width[0], bar.at(c, g) + i * PT<V>);
}
