// What a tile of points needs besides the products: coordinates, seeds, cotangents, losses, first layer, sums over
// points. A tile is `groups` groups of PT points. Lanes past the last point repeat it; their cotangents are zero and
// nothing of them is stored.

template <class V>
using TileArray = Planes<typename V::T>;

// Bump allocator over one thread's workspace; with a null base it only counts.
struct Arena {
  char* base;
  size_t used;
  template <class T>
  INLINE T* take(int64_t n) {
    T* p = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (static_cast<size_t>(n) * sizeof(T) + 63) / 64 * 64;
    return p;
  }
  template <class V>
  INLINE TileArray<V> planes(int64_t channels, int64_t groups, int64_t rows) {
    int64_t size = (rows + V::L - 1) / V::L * V::L * PT<V>;
    return {take<typename V::T>(channels * groups * size), size, groups};
  }
};

struct Extent {  // the points of one tile
  int64_t first, count, N;
  INLINE int64_t index(int64_t lane) const { return first + lane < N ? first + lane : N - 1; }
};

template <class T>
INLINE T grid_coordinate(const Grid& grid, int64_t D, int64_t n, int64_t axis) {
  for (int64_t a = D - 1; a > axis; a--) n /= grid.shape[a];
  return static_cast<T>(grid.origin[axis] +
                        grid.step[axis] * static_cast<double>(grid.start[axis] + n % grid.shape[axis]));
}

// x [group][D][PT]
template <class V>
void load_points(const Points<typename V::T>& points, int64_t D, const Extent& e, const TileArray<V>& x) {
  for (int64_t g = 0; g < x.groups; g++) {
    const int64_t n = e.index(g * PT<V>), last = e.N - 1 - n;
    typename V::T* RESTRICT out = x.at(0, g);
    const typename V::T* RESTRICT rows = points.x ? points.x + n * D : nullptr;
    for (int64_t i = 0; i < D; i++)
      for (int64_t lane = 0; lane < PT<V>; lane++) {
        const int64_t j = lane < last ? lane : last;
        out[i * PT<V> + lane] = rows ? rows[j * D + i] : grid_coordinate<typename V::T>(*points.grid, D, n + j, i);
      }
  }
}

// Small arrays [channels][count], one for all points or one per point, into out (channel, group) [count][PT], times
// scale.
template <class V>
void load_rows(const typename V::T* source, bool per_point, int64_t channels, int64_t count, double scale,
               const Extent& e, const TileArray<V>& out) {
  for (int64_t g = 0; g < out.groups; g++)
    for (int64_t lane = 0; lane < PT<V>; lane++) {
      const typename V::T* s = source + (per_point ? e.index(g * PT<V> + lane) * channels * count : 0);
      for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < count; i++)
          out.at(c, g)[i * PT<V> + lane] = static_cast<typename V::T>(s[c * count + i] * scale);
    }
}

// Cotangents [N][channels][O] into out (channel, group) [O][PT], times scale; null and lanes past the end give zero.
template <class V>
void load_cotangents(const typename V::T* source, int64_t channels, int64_t O, double scale, const Extent& e,
                     const TileArray<V>& out, int64_t channel0) {
  for (int64_t c = 0; c < channels; c++)
    for (int64_t g = 0; g < out.groups; g++)
      for (int64_t q = 0; q < O; q++)
        for (int64_t lane = 0; lane < PT<V>; lane++) {
          int64_t j = g * PT<V> + lane;
          bool given = source && j < e.count;
          out.at(channel0 + c, g)[q * PT<V> + lane] =
              given ? static_cast<typename V::T>(source[((e.first + j) * channels + c) * O + q] * scale)
                    : typename V::T(0);
        }
}

// The reverse: tile (channel, group) [O][PT] to target [N][channels][O], times scale.
template <class V>
void store_rows(const TileArray<V>& tile, int64_t channel0, int64_t channels, int64_t O, double scale, const Extent& e,
                typename V::T* target) {
  if (!target) return;
  for (int64_t j = 0; j < e.count; j++)
    for (int64_t c = 0; c < channels; c++)
      for (int64_t q = 0; q < O; q++)
        target[((e.first + j) * channels + c) * O + q] =
            static_cast<typename V::T>(tile.at(channel0 + c, j / PT<V>)[q * PT<V> + j % PT<V>] * scale);
}

// Coefficients of the quadratic forms, group [terms][PT]; see Term. forms [R, K, K] or [N, R, K, K].
template <class V>
void load_terms(const typename V::T* forms, bool per_point, int64_t R, int64_t K, const Term* terms, int64_t n_terms,
                const Extent& e, const TileArray<V>& out) {
  for (int64_t g = 0; g < out.groups; g++)
    for (int64_t lane = 0; lane < PT<V>; lane++) {
      const typename V::T* M = forms + (per_point ? e.index(g * PT<V> + lane) * R * K * K : 0);
      for (int64_t t = 0; t < n_terms; t++) {
        const typename V::T* m = M + terms[t].form * K * K;
        int64_t k = terms[t].k, j = terms[t].j;
        out.at(0, g)[t * PT<V> + lane] = k == j ? m[k * K + k] : m[k * K + j] + m[j * K + k];
      }
    }
}

// Phases [PT] of unit f of the first layer, in half turns, at one group of points. Every product is reduced by its
// whole turns before it is added, with the weight as hi + lo, so that phases of thousands of turns keep full accuracy.
template <class V>
INLINE void first_phase(const Packed<typename V::T>& net, int64_t f, const typename V::T* x, typename V::T* out) {
  const int64_t D = net.D;
  const typename V::T *hi = net.first_hi + f * D, *lo = net.first_lo + f * D;
  // Turns on the way: halves of numbers are exact.
  const typename V::R half = V::set(typename V::T(0.5)), bias = V::mul(half, V::set(net.bias[0][f]));
  typename V::R phase[V::NV];
  UNROLL(8)
  for (int v = 0; v < V::NV; v++) phase[v] = bias;
  for (int64_t i = 0; i < D; i++, x += PT<V>) {
    const typename V::R high = V::mul(half, V::set(hi[i])), low = V::mul(half, V::set(lo[i]));
    UNROLL(8)
    for (int v = 0; v < V::NV; v++) {
      const typename V::R xi = V::load(x + v * V::L), whole = V::round(V::mul(xi, high));
      phase[v] = V::add(phase[v], V::fma(xi, low, V::fms_exact(xi, high, whole)));
    }
  }
  UNROLL(8)
  for (int v = 0; v < V::NV; v++) V::store(out + v * V::L, V::add(phase[v], phase[v]));
}

// out [PT] = sum over rows f of weight[f * stride] * plane [f][PT], in chains of CHAIN.
template <class V>
void contract(const typename V::T* plane, const typename V::T* weight, int64_t stride, int64_t rows,
              typename V::T* out) {
  for (int v = 0; v < V::NV; v++) {
    typename V::R total = V::set(0);
    for (int64_t f0 = 0; f0 < rows; f0 += CHAIN) {
      typename V::R chain = V::set(0);
      for (int64_t f = f0; f < rows && f < f0 + CHAIN; f++)
        chain = V::fma(V::set(weight[f * stride]), V::load(plane + (f * V::NV + v) * V::L), chain);
      total = V::add(total, chain);
    }
    V::store(out + v * V::L, total);
  }
}

// Where the outputs of a tile stand and where their cotangents go: value [O][PT]; jacobian of output q, input i at q *
// jq + i * ji.
template <class T>
struct LossTile {
  const T *value, *jacobian, *laplacian;
  T *value_bar, *jacobian_bar, *laplacian_bar;
  int64_t jq, ji;
  double first_scale, second_scale;
};

// Sum of `count` numbers, a power of two, in pairs; overwrites them.
template <int64_t COUNT, class T>
INLINE T pair_sum(T* a) {
  for (int64_t n = COUNT / 2; n > 0; n /= 2)
    for (int64_t i = 0; i < n; i++) a[i] += a[i + n];
  return a[0];
}

// Squared residuals of one group: `found` [O][PT], times scale, against the targets.
template <class V>
NOINLINE double residual_loss(const Loss<typename V::T>& loss, const typename V::T* RESTRICT found, double scale,
                              typename V::T* RESTRICT bar, int64_t O, int64_t n0, int64_t count) {
  constexpr int64_t SUMS = 16;
  const typename V::T *target = loss.target + n0 * O, *weight = loss.weight ? loss.weight + n0 : nullptr;
  const double factor = loss.scale;
  double sums[SUMS] = {};
  for (int64_t q = 0; q < O; q++)
    for (int64_t lane0 = 0; lane0 < count; lane0 += SUMS)
      for (int64_t i = 0; i < SUMS && i < count - lane0; i++) {
        const int64_t lane = lane0 + i, o = q * PT<V> + lane;
        const double w = (weight ? weight[lane] : 1.0) * factor, r = found[o] * scale - target[lane * O + q];
        bar[o] = static_cast<typename V::T>(2 * w * r * scale);
        sums[i] += w * r * r;
      }
  return pair_sum<SUMS>(sums);
}

// The loss of one group and the cotangents of its outputs; returns the sum, unscaled cotangents being those of scale *
// sum.
template <class V>
double tile_loss(const Loss<typename V::T>& loss, const LossTile<typename V::T>& t, int64_t D, int64_t O, int64_t n0,
                 int64_t count) {
  using T = typename V::T;
  if (loss.kind == LossKind::value) return residual_loss<V>(loss, t.value, 1, t.value_bar, O, n0, count);
  if (loss.kind == LossKind::laplacian)
    return residual_loss<V>(loss, t.laplacian, t.second_scale, t.laplacian_bar, O, n0, count);
  double sum = 0;
  for (int64_t lane = 0; lane < count; lane++) {
    const int64_t n = n0 + lane;
    const double w = (loss.weight ? loss.weight[n] : 1.0) * loss.scale;
    for (int64_t q = 0; q < O; q++) {
      double square = 0;
      for (int64_t i = 0; i < D; i++) {
        double j = t.jacobian[q * t.jq + i * t.ji + lane] * t.first_scale;
        if (loss.target) j -= loss.target[(n * O + q) * D + i];
        square += j * j;
      }
      const double norm = std::sqrt(square);
      const bool eikonal = loss.kind == LossKind::eikonal;
      // The norm has no derivative at zero; its subgradient zero is what torch uses.
      const double slope = !eikonal ? 2 * w : norm == 0 ? 0.0 : 2 * w * (norm - 1) / norm;
      sum += eikonal ? w * (norm - 1) * (norm - 1) : w * square;
      for (int64_t i = 0; i < D; i++) {
        const int64_t at = q * t.jq + i * t.ji + lane;
        double j = t.jacobian[at] * t.first_scale;
        if (loss.target) j -= loss.target[(n * O + q) * D + i];
        t.jacobian_bar[at] = static_cast<T>(slope * j * t.first_scale);
      }
    }
  }
  return sum;
}

// The sums of the lanes of `rows` vectors, in pairs, to the front of the same array.
template <class V>
NOINLINE void sum_lanes(typename V::T* lanes, int64_t rows) {
  typename V::T columns[V::L * V::L];
  int64_t row = 0;
  for (; row + V::L <= rows; row += V::L) {
    V::transpose(lanes + row * V::L, V::L, columns, V::L);
    for (int n = V::L / 2; n > 0; n /= 2)
      for (int i = 0; i < n; i++)
        V::store(columns + i * V::L, V::add(V::load(columns + i * V::L), V::load(columns + (i + n) * V::L)));
    V::store(lanes + row, V::load(columns));
  }
  for (; row < rows; row++) {
    V::store(columns, V::load(lanes + row * V::L));
    lanes[row] = pair_sum<V::L>(columns);
  }
}

// sums [rows][L] += rows of all groups, lane by lane; `step` from group to group.
template <class V>
NOINLINE void add_rows(const typename V::T* a, int64_t step, int64_t groups, int64_t rows, typename V::T* sums) {
  for (int64_t f = 0; f < rows; f++, a += PT<V>, sums += V::L) {
    typename V::R sum = V::load(sums);
    for (int64_t g = 0; g < groups; g++) {
      UNROLL(8)
      for (int v = 0; v < V::NV; v++) sum = V::add(sum, V::load(a + g * step + v * V::L));
    }
    V::store(sums, sum);
  }
}

// The same of the products of rows of `a` with one row `b`; `sums_step` from sum to sum.
template <class V>
NOINLINE void add_products(const typename V::T* a, int64_t a_step, const typename V::T* b, int64_t b_step,
                           int64_t groups, int64_t rows, typename V::T* sums, int64_t sums_step) {
  for (int64_t f = 0; f < rows; f++, a += PT<V>, sums += sums_step) {
    typename V::R sum = V::load(sums);
    for (int64_t g = 0; g < groups; g++) {
      UNROLL(8)
      for (int v = 0; v < V::NV; v++)
        sum = V::fma(V::load(a + g * a_step + v * V::L), V::load(b + g * b_step + v * V::L), sum);
    }
    V::store(sums, sum);
  }
}

// One segment's sums: weight blocks straight in the segment's buffer, the rest in lanes until the segment ends.
template <class V>
struct Gradient {
  using T = typename V::T;
  const Packed<T>* net;
  const GradientLayout* layout;
  T *bias, *first, *output, *transposed;  // [sum of widths][L], [H0][D][L], [O][H][L]
  int64_t total_width, max_columns;
  SegmentSums sums;

  void plan(Arena& arena, const Packed<T>& packed, const GradientLayout& where, int64_t columns) {
    net = &packed;
    layout = &where;
    total_width = 0;
    for (int64_t l = 0; l < packed.sines; l++) total_width += packed.width[l];
    bias = arena.take<T>(total_width * V::L);
    first = arena.take<T>(packed.width[0] * packed.D * V::L);
    output = arena.take<T>(packed.O * packed.width[packed.sines - 1] * V::L);
    transposed = arena.take<T>(columns * V::WV * V::L);
  }
  // Without parameter gradients only the loss is summed.
  void begin(Schedule& schedule, bool parameters) {
    sums = segment_begin(schedule);
    if (!parameters) return;
    std::memset(bias, 0, total_width * V::L * sizeof(T));
    if (!layout->weights) return;
    std::memset(first, 0, net->width[0] * net->D * V::L * sizeof(T));
    std::memset(output, 0, net->O * net->width[net->sines - 1] * V::L * sizeof(T));
  }
  void end(Schedule& schedule, int64_t segment, bool parameters) {
    if (parameters) gather();
    segment_end(schedule, segment, sums);
  }
  void gather() {
    T *values = static_cast<T*>(sums.values), *b = bias;
    const int64_t last = net->sines;
    sum_lanes<V>(bias, total_width);
    for (int64_t l = 0; l < last; b += net->width[l++])
      std::memcpy(values + layout->bias[l], b, static_cast<size_t>(net->width[l]) * sizeof(T));
    if (!layout->weights) return;
    gather_weight(first, 0, net->width[0], net->D);
    gather_weight(output, last, net->O, net->width[last - 1]);
  }
  void gather_weight(T* lanes, int64_t l, int64_t rows, int64_t columns) {
    T* weight = static_cast<T*>(sums.values) + layout->weight[l];
    sum_lanes<V>(lanes, rows * columns);
    for (int64_t r = 0; r < rows; r++)
      std::memcpy(weight + r * layout->stride[l], lanes + r * columns, static_cast<size_t>(columns) * sizeof(T));
  }
  // bias sums of sine layer l from channel 0 of its cotangents
  void add_bias(int64_t l, const Planes<T>& left) {
    T* b = bias;
    for (int64_t i = 0; i < l; i++) b += net->width[i] * V::L;
    add_rows<V>(left.at(0, 0), left.size, left.groups, net->width[l], b);
  }
  void add_weight(int64_t l, const Planes<T>& left, const Planes<T>& right, int64_t channels) {
    if (!layout->weights) return;
    weight_grad<V>(left, net->width[l], right, net->width[l - 1], channels, transposed,
                   static_cast<T*>(sums.values) + layout->weight[l], layout->stride[l]);
  }
  // first-layer sums: left (channel) [H0][PT] times right (right_channel) [D][PT]
  void add_first(const Planes<T>& left, int64_t channel, const Planes<T>& right, int64_t right_channel) {
    if (!layout->weights) return;
    const int64_t D = net->D;
    for (int64_t i = 0; i < D; i++)
      add_products<V>(left.at(channel, 0), left.size, right.at(right_channel, 0) + i * PT<V>, right.size, left.groups,
                      net->width[0], first + i * V::L, D * V::L);
  }
  // output sums: coefficient [.][PT] of output q (channel c of `left`) times hidden channel c of `right`
  void add_output(const Planes<T>& left, const Planes<T>& right, int64_t channels) {
    // Channels follow one another as groups do.
    if (!layout->weights) return;
    const int64_t H = net->width[net->sines - 1];
    for (int64_t q = 0; q < net->O; q++)
      add_products<V>(right.at(0, 0), right.size, left.at(0, 0) + q * PT<V>, left.size, channels * left.groups, H,
                      output + q * H * V::L, V::L);
  }
  void add_output_bias(const Planes<T>& left) {
    for (int64_t q = 0; q < net->O; q++) {
      double lanes[V::L] = {};
      for (int64_t g = 0; g < left.groups; g++)
        for (int v = 0; v < V::NV; v++)
          for (int i = 0; i < V::L; i++) lanes[i] += left.at(0, g)[q * PT<V> + v * V::L + i];
      sums.doubles[1 + q] += pair_sum<V::L>(lanes);
    }
  }
};
