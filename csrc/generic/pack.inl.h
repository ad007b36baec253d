// Hidden matrices in panels [panel][k][MR] of omega / pi W. Compiled per instruction set: a call with few points is
// mostly this.

// Entries k0 .. k1-1 of one panel of MR rows of W, or of its transpose; rows past the end are zero.
template <class V, bool DOWN>
INLINE void pack_panel(const Affine<typename V::T>& a, int64_t row, int64_t rows, int64_t k0, int64_t k1,
                       typename V::T* RESTRICT panel) {
  const double scale = a.omega / PI;
  const typename V::T* RESTRICT w = a.W + row * (DOWN ? 1 : a.in);
  for (int64_t k = k0; k < k1; k++) {
    UNROLL(16)
    for (int64_t m = 0; m < V::MR; m++)
      panel[k * V::MR + m] =
          m < rows ? static_cast<typename V::T>(w[DOWN ? k * a.in + m : m * a.in + k] * scale) : typename V::T(0);
  }
}

template <class V, bool DOWN>
NOINLINE void pack_hidden(const Affine<typename V::T>& a, typename V::T* panels, int64_t id, int64_t shares) {
  const int64_t rows = DOWN ? a.in : a.out, K = DOWN ? a.out : a.in;
  // Rows of W lie across the panels of its transpose: a few at a time stay in the cache until all panels have passed.
  const int64_t chunk = DOWN ? 16 : K;
  for (int64_t k0 = 0; k0 < K; k0 += chunk) {
    const int64_t k1 = k0 + chunk < K ? k0 + chunk : K;
    for (int64_t row = id * V::MR; row < rows; row += shares * V::MR)
      // Whole panels by a count that the compiler knows.
      rows - row < V::MR ? pack_panel<V, DOWN>(a, row, rows - row, k0, k1, panels + row * K)
                         : pack_panel<V, DOWN>(a, row, V::MR, k0, k1, panels + row * K);
  }
}

template <class V>
void pack_panels(const Affine<typename V::T>& a, typename V::T* up, typename V::T* down, int64_t id, int64_t shares) {
  pack_hidden<V, false>(a, up, id, shares);
  if (down) pack_hidden<V, true>(a, down, id, shares);
}
