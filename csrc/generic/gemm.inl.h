// The two matrix products of every pass, on tiles with points in lanes.
// A plane holds one channel of one group of points: [feature][PT], PT = NV vectors of L points.

template <class V>
constexpr int PT = V::NV * V::L;

// Chains of additions are cut here: the error of a sum grows with the length of its chain.
constexpr int64_t CHAIN = 128;

// out [M][PT] = panel [K][M]^T plane [K][PT]. The accumulators never leave the registers within a chain.
template <class V, int M>
NOINLINE void multiply(const typename V::T* RESTRICT panel, const typename V::T* RESTRICT plane, int64_t K,
                       typename V::T* RESTRICT out) {
  constexpr int NV = V::NV, L = V::L;
  for (int64_t k0 = 0; k0 < K; k0 += CHAIN) {
    int64_t k1 = k0 + CHAIN < K ? k0 + CHAIN : K;
    typename V::R acc[M][NV];
    UNROLL(16)
    for (int m = 0; m < M; m++) {
      UNROLL(8)
      for (int v = 0; v < NV; v++) acc[m][v] = V::set(0);
    }
    for (const typename V::T* end = plane + (k1 - k0) * NV * L; plane < end; plane += NV * L) {
      typename V::R h[NV];
      UNROLL(8)
      for (int v = 0; v < NV; v++) h[v] = V::load(plane + v * L);
      UNROLL(16)
      for (int m = 0; m < M; m++) {
        typename V::R w = V::set(panel[m]);
        UNROLL(8)
        for (int v = 0; v < NV; v++) acc[m][v] = V::fma(w, h[v], acc[m][v]);
      }
      panel += M;
    }
    UNROLL(16)
    for (int m = 0; m < M; m++) {
      UNROLL(8)
      for (int v = 0; v < NV; v++) {
        typename V::T* o = out + (m * NV + v) * L;
        V::store(o, k0 ? V::add(V::load(o), acc[m][v]) : acc[m][v]);
      }
    }
  }
}

// Planes of one layer: channel c of group g stands at base + (c * groups + g) * size.
template <class T>
struct Planes {
  T* base;
  int64_t size, groups;
  INLINE T* at(int64_t c, int64_t g) const { return base + (c * groups + g) * size; }
};

// For every panel of M rows and group: the products of all channels into place(row, g), which is [channel][M][PT], then
// finish(products, row, rows, g).
template <class V, int M, class Place, class Finish>
INLINE void sweep_into(const typename V::T* panels, int64_t rows, int64_t K, const Planes<typename V::T>& in,
                       int64_t channels, Place&& place, Finish&& finish) {
  for (int64_t row = 0; row < rows; row += M) {
    for (int64_t g = 0; g < in.groups; g++) {
      typename V::T* const out = place(row, g);
      for (int64_t c = 0; c < channels; c++) multiply<V, M>(panels, in.at(c, g), K, out + c * M * PT<V>);
      finish(out, row, rows - row < M ? rows - row : M, g);
    }
    panels += K * M;
  }
}

// The same through scratch, which finish(row, rows, g) knows.
template <class V, int M, class Finish>
INLINE void sweep(const typename V::T* panels, int64_t rows, int64_t K, const Planes<typename V::T>& in,
                  int64_t channels, typename V::T* scratch, Finish&& finish) {
  sweep_into<V, M>(
      panels, rows, K, in, channels, [=](int64_t, int64_t) { return scratch; },
      [&](const typename V::T*, int64_t row, int64_t rows, int64_t g) { finish(row, rows, g); });
}

// Rows of the output panels: few outputs must not pay for a full panel.
template <class V>
int64_t output_rows(int64_t O) {
  return O == 1 ? 1 : O == 2 ? 2 : O <= 4 ? 4 : V::MR;
}

template <class V, class Finish>
INLINE void output_sweep(const Packed<typename V::T>& net, const Planes<typename V::T>& in, int64_t channels,
                         typename V::T* scratch, Finish&& finish) {
  const int64_t H = net.width[net.sines - 1];
  switch (output_rows<V>(net.O)) {
    case 1:
      return sweep<V, 1>(net.out_W, net.O, H, in, channels, scratch, finish);
    case 2:
      return sweep<V, 2>(net.out_W, net.O, H, in, channels, scratch, finish);
    case 4:
      return sweep<V, 4>(net.out_W, net.O, H, in, channels, scratch, finish);
    default:
      return sweep<V, V::MR>(net.out_W, net.O, H, in, channels, scratch, finish);
  }
}

// Lanes of W vectors of features for every point of a plane: from [feature][PT] to [PT][W * L].
template <class V, int W>
INLINE void transpose_block(const typename V::T* plane, typename V::T* out) {
  for (int w = 0; w < W; w++)
    for (int v = 0; v < V::NV; v++)
      V::transpose(plane + (w * V::L * V::NV + v) * V::L, V::NV * V::L, out + (v * V::L * W + w) * V::L, W * V::L);
}

// dW [M rows][W vectors] += sum over channels, groups and points of left [row][PT] * right [PT][W * L].
template <class V, int M, int W>
NOINLINE void outer_block(Planes<typename V::T> left, int64_t row, const typename V::T* RESTRICT right,
                          int64_t channels, typename V::T* RESTRICT dW, int64_t stride) {
  typename V::R acc[M][W];
  UNROLL(8)
  for (int m = 0; m < M; m++) {
    UNROLL(4)
    for (int w = 0; w < W; w++) acc[m][w] = V::set(0);
  }
  // The sums of a large network live in the outer cache: they arrive while the products are made.
  for (int m = 0; m < M; m++)
    for (int w = 0; w < W; w++) __builtin_prefetch(dW + m * stride + w * V::L, 1);
  for (int64_t c = 0; c < channels; c++) {
    for (int64_t g = 0; g < left.groups; g++) {
      const typename V::T* z = left.at(c, g) + row * PT<V>;
      for (int n = 0; n < PT<V>; n++) {
        typename V::R h[W];
        UNROLL(4)
        for (int w = 0; w < W; w++) h[w] = V::load(right + w * V::L);
        UNROLL(8)
        for (int m = 0; m < M; m++) {
          typename V::R b = V::set(z[m * PT<V> + n]);
          UNROLL(4)
          for (int w = 0; w < W; w++) acc[m][w] = V::fma(b, h[w], acc[m][w]);
        }
        right += W * V::L;
      }
    }
  }
  UNROLL(8)
  for (int m = 0; m < M; m++) {
    UNROLL(4)
    for (int w = 0; w < W; w++)
      V::store(dW + m * stride + w * V::L, V::add(V::load(dW + m * stride + w * V::L), acc[m][w]));
  }
}

template <class V, int W>
INLINE void outer_columns(const Planes<typename V::T>& left, int64_t rows, const Planes<typename V::T>& right,
                          int64_t column, int64_t channels, typename V::T* transposed, typename V::T* dW,
                          int64_t stride) {
  typename V::T* t = transposed;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t g = 0; g < right.groups; g++, t += PT<V> * W * V::L)
      transpose_block<V, W>(right.at(c, g) + column * PT<V>, t);
  // Fewer columns leave registers for more rows.
  constexpr int M = W == V::WV ? V::WM : V::MR;
  int64_t r = 0;
  for (; r + M <= rows; r += M) outer_block<V, M, W>(left, r, transposed, channels, dW + r * stride + column, stride);
  for (; r + 2 <= rows; r += 2) outer_block<V, 2, W>(left, r, transposed, channels, dW + r * stride + column, stride);
  for (; r < rows; r++) outer_block<V, 1, W>(left, r, transposed, channels, dW + r * stride + column, stride);
}

// dW [rows][stride] += sum over channels and points of left (rows features) times right (columns features). Rows of
// `right` past `columns`, up to a multiple of L, must be readable; what they hold lands in padding columns of dW.
template <class V>
void weight_grad(const Planes<typename V::T>& left, int64_t rows, const Planes<typename V::T>& right, int64_t columns,
                 int64_t channels, typename V::T* transposed, typename V::T* dW, int64_t stride) {
  int64_t k = 0;
  for (; columns - k > (V::WV - 1) * V::L; k += V::WV * V::L)
    outer_columns<V, V::WV>(left, rows, right, k, channels, transposed, dW, stride);
  for (; columns - k > V::L; k += 2 * V::L) outer_columns<V, 2>(left, rows, right, k, channels, transposed, dW, stride);
  for (; columns - k > 0; k += V::L) outer_columns<V, 1>(left, rows, right, k, channels, transposed, dW, stride);
}
