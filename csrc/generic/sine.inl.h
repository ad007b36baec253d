// sin(pi u) and cos(pi u), u in half turns. r = u - k / 2, u rounded to k / 2, is exact, so the reduction costs no
// accuracy for any u. Near-minimax polynomials on |r| <= 1/4; the leading sine coefficient is pi in two parts. Error:
// fp32 below 2 ulp (1e-7 absolute), fp64 below 2 ulp; tests/test_sine.py holds the bound. NaN and Inf give NaN, as
// libm.

template <class T>
struct Poly;
template <>
struct Poly<float> {
  static constexpr int N = 4;
  static constexpr float sine_hi = 3.1415927410125732f;
  static constexpr float sine[N] = {-1.30841656e-07f, -5.16770363f, 2.54962897f, -0.58781302f};
  static constexpr float cosine[N] = {-4.93480206f, 4.05870771f, -1.33505845f, 0.231429547f};
};
template <>
struct Poly<double> {
  static constexpr int N = 7;
  static constexpr double sine_hi = 3.141592653589793;
  static constexpr double sine[N] = {1.1257753238794835e-16, -5.167712780049954,  2.5501640398733763,
                                     -0.5992645289396449,    0.08214586918000175, -0.007370021586907771,
                                     0.000461531855383581};
  static constexpr double cosine[N] = {-4.934802200544679,     4.058712126416765,     -1.3352627688538095,
                                       0.23533063028399223,    -0.025806887964701878, 0.001929493874894941,
                                       -0.00010370082971594627};
};

template <class V>
struct Turn {  // u = r + k / 2
  typename V::R sine, cosine;
  typename V::I quadrant;
};

template <class V>
INLINE Turn<V> turn(typename V::R u) {
  using P = Poly<typename V::T>;
  using R = typename V::R;
  R half = V::round_half(u), r = V::sub(u, half), r2 = V::mul(r, r);
  R p = V::set(P::sine[P::N - 1]), q = V::set(P::cosine[P::N - 1]);
  UNROLL(8)
  for (int i = P::N - 2; i >= 0; i--) {
    p = V::fma(p, r2, V::set(P::sine[i]));
    q = V::fma(q, r2, V::set(P::cosine[i]));
  }
  return {V::fma(r, V::set(P::sine_hi), V::mul(r, p)), V::fma(q, r2, V::set(typename V::T(1))),
          V::quadrant(V::add(half, half))};
}

template <class V>
INLINE typename V::R sinpi(typename V::R u) {
  Turn<V> t = turn<V>(u);
  return V::flip_if(V::pick_odd(t.quadrant, t.sine, t.cosine), t.quadrant);
}

template <class V>
INLINE void sincospi(typename V::R u, typename V::R& s, typename V::R& c) {
  Turn<V> t = turn<V>(u);
  s = V::flip_if(V::pick_odd(t.quadrant, t.sine, t.cosine), t.quadrant);
  c = V::flip_if(V::pick_odd(t.quadrant, t.cosine, t.sine), V::next(t.quadrant));
}

template <class V>
void sinpi_array(const typename V::T* u, typename V::T* sine, typename V::T* cosine, int64_t n) {
  for (int64_t i = 0; i < n; i += V::L) {
    typename V::T in[V::L] = {}, s[V::L], c[V::L];
    int64_t m = n - i < V::L ? n - i : V::L;
    for (int64_t j = 0; j < m; j++) in[j] = u[i + j];
    typename V::R rs, rc;
    sincospi<V>(V::load(in), rs, rc);
    V::store(s, rs);
    V::store(c, rc);
    for (int64_t j = 0; j < m; j++) sine[i + j] = s[j], cosine[i + j] = c[j];
  }
}
