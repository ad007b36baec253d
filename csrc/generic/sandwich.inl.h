// Engines A and TxA of kernels/README.md: an adjoint sweep per combination of outputs, contracted with K tangents layer
// by layer. In half turns: a as in (13), g = c a with c = pi cos(pi u); H = -pi^2 sum a h p_k p_j. K = 0 is engine A.

// Counts known to the compiler for a single combination, with or without tangents; see Counts.
template <int64_t K_>
struct OneCombination : Counts<K_, 0> {
  static INLINE int64_t C(int64_t) { return 1; }
};
struct AnyCombinations : AnyCounts {
  static INLINE int64_t C(int64_t combinations) { return combinations; }
};
template <class Call>
INLINE void with_combinations(const Shape& s, int64_t combinations, Call&& call) {
  if (combinations == 1 && s.K == 0) return call(OneCombination<0>{});
  call(AnyCombinations{});
}

// (19) for the units of one panel: hessian (c) [pairs][PT] gets one sum of them, so that its chain is short.
template <class V>
NOINLINE void collect_hessian(const Shape& s, int64_t C, const typename V::T* z, int64_t row, int64_t rows,
                              Planes<typename V::T> hidden, Planes<typename V::T> saved, TileArray<V> hessian,
                              int64_t g) {
  const int64_t step = saved.groups * saved.size;
  for (int64_t e = 0; e < C; e++)
    for (int64_t t = 0; t < s.n_terms; t++)
      for (int v = 0; v < V::NV; v++) {
        typename V::R sum = V::set(0);
        for (int64_t i = 0; i < rows; i++) {
          const int64_t o = ((row + i) * V::NV + v) * V::L;
          const typename V::T* slope = saved.at(1, g) + o;
          typename V::R a = V::load(z + e * V::MR * PT<V> + (i * V::NV + v) * V::L);
          typename V::R pp = V::mul(V::load(slope + s.terms[t].k * step), V::load(slope + s.terms[t].j * step));
          sum = V::fma(V::mul(V::load(hidden.at(0, g) + o), a), pp, sum);
        }
        typename V::T* H = hessian.at(e, g) + t * PT<V> + v * V::L;
        V::store(H, V::fnma(V::set(typename V::T(PI2)), sum, V::load(H)));
      }
}

// (13) to (15): adjoints in z [C][MR][PT] to a and g, and (19) where a Hessian is wanted.
template <class V, class Count>
NOINLINE void gate_counted(const Shape& s, int64_t combinations, const typename V::T* z, int64_t row, int64_t rows,
                           Planes<typename V::T> hidden, Planes<typename V::T> saved, Planes<typename V::T> adjoint,
                           Planes<typename V::T> gated, const TileArray<V>* hessian, int64_t g) {
  const int64_t C = Count::C(combinations);
  for (int64_t i = 0; i < rows; i++)
    for (int v = 0; v < V::NV; v++) {
      const int64_t o = ((row + i) * V::NV + v) * V::L;
      const typename V::R c = V::load(saved.at(0, g) + o);
      for (int64_t e = 0; e < C; e++) {
        typename V::R a = V::load(z + e * V::MR * PT<V> + (i * V::NV + v) * V::L);
        if (adjoint.base) V::store(adjoint.at(e, g) + o, a);
        V::store(gated.at(e, g) + o, V::mul(c, a));
      }
    }
  if (hessian) collect_hessian<V>(s, C, z, row, rows, hidden, saved, *hessian, g);
}

template <class V>
INLINE void gate(const Shape& s, int64_t C, const typename V::T* z, int64_t row, int64_t rows,
                 const Planes<typename V::T>& hidden, const Planes<typename V::T>& saved,
                 const Planes<typename V::T>& adjoint, const Planes<typename V::T>& gated, const TileArray<V>* hessian,
                 int64_t g) {
  with_combinations(s, C, [&](auto count) {
    gate_counted<V, decltype(count)>(s, C, z, row, rows, hidden, saved, adjoint, gated, hessian, g);
  });
}

// (20), (21) on the way up: g_bar in z [C][MR][PT] to a_bar; e overwrites adjoint channel 0. coef (c) [pairs][PT] holds
// H_bar.
template <class V, class Count>
NOINLINE void gate_bwd_counted(const Shape& s, int64_t combinations, const typename V::T* z, int64_t row, int64_t rows,
                               Planes<typename V::T> hidden, Planes<typename V::T> saved, Planes<typename V::T> early,
                               Planes<typename V::T> adjoint, TileArray<V> coef, Planes<typename V::T> a_bar,
                               int64_t g) {
  using T = typename V::T;
  const int64_t K = Count::K(s), C = Count::C(combinations);
  const int64_t step = saved.groups * saved.size;
  for (int64_t i = 0; i < rows; i++)
    for (int v = 0; v < V::NV; v++) {
      const int64_t o = ((row + i) * V::NV + v) * V::L;
      const typename V::R c = V::load(saved.at(0, g) + o), bend = V::mul(V::load(hidden.at(0, g) + o), V::set(T(PI2)));
      const typename V::R c2 = V::mul(c, V::set(T(PI2)));
      typename V::R sum = V::set(0);
      for (int64_t e = 0; e < C; e++) {
        typename V::R g_bar = V::load(z + e * V::MR * PT<V> + (i * V::NV + v) * V::L),
                      a = V::load(adjoint.at(e, g) + o);
        typename V::R part = V::mul(bend, g_bar), up = V::mul(c, g_bar);
        if (K) {
          typename V::R U = form<V>(s, 0, saved.at(1, g) + o, step, coef.at(e, g) + v * V::L);
          part = V::fma(c2, U, part);
          up = V::fnma(bend, U, up);
        }
        sum = V::fnma(a, part, sum);
        V::store(a_bar.at(e, g) + o, up);
      }
      V::store(early.at(0, g) + o, sum);
    }
}

template <class V>
INLINE void gate_bwd(const Shape& s, int64_t C, const typename V::T* z, int64_t row, int64_t rows,
                     const Planes<typename V::T>& hidden, const Planes<typename V::T>& saved,
                     const Planes<typename V::T>& early, const Planes<typename V::T>& adjoint, const TileArray<V>& coef,
                     const Planes<typename V::T>& a_bar, int64_t g) {
  with_combinations(s, C, [&](auto count) {
    gate_bwd_counted<V, decltype(count)>(s, C, z, row, rows, hidden, saved, early, adjoint, coef, a_bar, g);
  });
}

// (24), (25) on the way down: h_bar and t_bar in z [1 + K][MR][PT] to the cotangents of phases and slopes.
template <class V, class Count>
NOINLINE void descend_counted(const Shape& s, int64_t combinations, const typename V::T* z, int64_t row, int64_t rows,
                              Planes<typename V::T> hidden, Planes<typename V::T> saved, Planes<typename V::T> early,
                              Planes<typename V::T> adjoint, TileArray<V> coef, Planes<typename V::T> left, int64_t g) {
  using T = typename V::T;
  const int64_t K = Count::K(s), C = Count::C(combinations);
  constexpr int64_t ZC = V::MR * PT<V>;
  const int64_t step = saved.groups * saved.size;
  for (int64_t i = 0; i < rows; i++)
    for (int v = 0; v < V::NV; v++) {
      const T* zi = z + (i * V::NV + v) * V::L;
      const int64_t o = ((row + i) * V::NV + v) * V::L;
      const T* slope = saved.at(1, g) + o;
      const typename V::R c = V::load(saved.at(0, g) + o), bend = V::mul(V::load(hidden.at(0, g) + o), V::set(T(PI2)));
      typename V::R dot = V::set(0);
      for (int64_t k = 0; k < K; k++) {
        typename V::R t_bar = V::load(zi + (1 + k) * ZC), twist = V::set(0);
        dot = V::fma(t_bar, V::load(slope + k * step), dot);
        for (int64_t e = 0; e < C; e++)
          twist = V::fma(V::load(adjoint.at(e, g) + o), form_slope<V>(s, 0, k, slope, step, coef.at(e, g) + v * V::L),
                         twist);
        V::store(left.at(1 + k, g) + o, V::fms(c, t_bar, V::mul(bend, twist)));
      }
      typename V::R u = V::fma(c, V::load(zi), V::load(early.at(0, g) + o));
      V::store(left.at(0, g) + o, V::fnma(bend, dot, u));
    }
}

template <class V>
INLINE void descend(const Shape& s, int64_t C, const typename V::T* z, int64_t row, int64_t rows,
                    const Planes<typename V::T>& hidden, const Planes<typename V::T>& saved,
                    const Planes<typename V::T>& early, const Planes<typename V::T>& adjoint, const TileArray<V>& coef,
                    const Planes<typename V::T>& left, int64_t g) {
  with_combinations(s, C, [&](auto count) {
    descend_counted<V, decltype(count)>(s, C, z, row, rows, hidden, saved, early, adjoint, coef, left, g);
  });
}
