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
  for (int64_t g = 0; g < x.groups; g++)
    for (int64_t lane = 0; lane < PT<V>; lane++) {
      int64_t n = e.index(g * PT<V> + lane);
      for (int64_t i = 0; i < D; i++)
        x.at(0, g)[i * PT<V> + lane] =
            points.x ? points.x[n * D + i] : grid_coordinate<typename V::T>(*points.grid, D, n, i);
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

// Phase of unit f of the first layer, in half turns. Every product is reduced mod 2 before it is added, with the weight
// as hi + lo, so that phases of thousands of turns keep full accuracy.
template <class V>
INLINE typename V::R first_phase(const Packed<typename V::T>& net, int64_t f, const typename V::T* x) {
  typename V::R u = V::set(net.bias[0][f]);
  for (int64_t i = 0; i < net.D; i++) {
    typename V::R xi = V::load(x + i * PT<V>), hi = V::set(net.first_hi[f * net.D + i]),
                  lo = V::set(net.first_lo[f * net.D + i]);
    typename V::R whole = V::round(V::mul(V::mul(xi, hi), V::set(typename V::T(0.5))));
    whole = V::add(whole, whole);
    u = V::add(u, V::fma(xi, lo, V::fms_exact(xi, hi, whole)));
  }
  return u;
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

// The loss of one group and the cotangents of its outputs; returns the sum, unscaled cotangents being those of scale *
// sum.
template <class V>
double tile_loss(const Loss<typename V::T>& loss, const LossTile<typename V::T>& t, int64_t D, int64_t O, int64_t n0,
                 int64_t count) {
  using T = typename V::T;
  double sum = 0;
  for (int64_t lane = 0; lane < count; lane++) {
    const int64_t n = n0 + lane;
    const double w = (loss.weight ? loss.weight[n] : 1.0) * loss.scale;
    for (int64_t q = 0; q < O; q++) {
      const int64_t o = q * PT<V> + lane;
      if (loss.kind == LossKind::value || loss.kind == LossKind::laplacian) {
        const bool second = loss.kind == LossKind::laplacian;
        const double scale = second ? t.second_scale : 1.0;
        const double r = (second ? t.laplacian : t.value)[o] * scale - loss.target[n * O + q];
        (second ? t.laplacian_bar : t.value_bar)[o] = static_cast<T>(2 * w * r * scale);
        sum += w * r * r;
        continue;
      }
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

template <class V>
INLINE typename V::T lane_sum(const typename V::T* p) {
  typename V::T half[V::L];
  for (int i = 0; i < V::L; i++) half[i] = p[i];
  for (int n = V::L / 2; n > 0; n /= 2)
    for (int i = 0; i < n; i++) half[i] += half[i + n];
  return half[0];
}

// `sum` plus a row of all groups, lane by lane; `step` from group to group.
template <class V>
INLINE typename V::R add_row(const typename V::T* a, int64_t step, int64_t groups, typename V::R sum) {
  for (int64_t g = 0; g < groups; g++, a += step) {
    UNROLL(8)
    for (int v = 0; v < V::NV; v++) sum = V::add(sum, V::load(a + v * V::L));
  }
  return sum;
}

// The same of the products of two rows.
template <class V>
INLINE typename V::R add_products(const typename V::T* a, int64_t a_step, const typename V::T* b, int64_t b_step,
                                  int64_t groups, typename V::R sum) {
  for (int64_t g = 0; g < groups; g++, a += a_step, b += b_step) {
    UNROLL(8)
    for (int v = 0; v < V::NV; v++) sum = V::fma(V::load(a + v * V::L), V::load(b + v * V::L), sum);
  }
  return sum;
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
    std::memset(first, 0, net->width[0] * net->D * V::L * sizeof(T));
    std::memset(output, 0, net->O * net->width[net->sines - 1] * V::L * sizeof(T));
  }
  void end(Schedule& schedule, int64_t segment, bool parameters) {
    if (parameters) gather();
    segment_end(schedule, segment, sums);
  }
  void gather() {
    T *values = static_cast<T*>(sums.values), *b = bias;
    const int64_t last = net->sines, H = net->width[last - 1];
    for (int64_t l = 0; l < net->sines; l++)
      for (int64_t f = 0; f < net->width[l]; f++, b += V::L) values[layout->bias[l] + f] = lane_sum<V>(b);
    for (int64_t f = 0; f < net->width[0]; f++)
      for (int64_t i = 0; i < net->D; i++)
        values[layout->weight[0] + f * layout->stride[0] + i] = lane_sum<V>(first + (f * net->D + i) * V::L);
    for (int64_t q = 0; q < net->O; q++)
      for (int64_t f = 0; f < H; f++)
        values[layout->weight[last] + q * layout->stride[last] + f] = lane_sum<V>(output + (q * H + f) * V::L);
  }
  // bias sums of sine layer l from channel 0 of its cotangents
  void add_bias(int64_t l, const Planes<T>& left) {
    T* b = bias;
    for (int64_t i = 0; i < l; i++) b += net->width[i] * V::L;
    const T* row = left.at(0, 0);
    const int64_t width = net->width[l], step = left.size, groups = left.groups;
    for (int64_t f = 0; f < width; f++, b += V::L, row += PT<V>) V::store(b, add_row<V>(row, step, groups, V::load(b)));
  }
  void add_weight(int64_t l, const Planes<T>& left, const Planes<T>& right, int64_t channels) {
    weight_grad<V>(left, net->width[l], right, net->width[l - 1], channels, transposed,
                   static_cast<T*>(sums.values) + layout->weight[l], layout->stride[l]);
  }
  // first-layer sums: left (channel) [H0][PT] times right (right_channel) [D][PT]
  void add_first(const Planes<T>& left, int64_t channel, const Planes<T>& right, int64_t right_channel) {
    const T *a = left.at(channel, 0), *b = right.at(right_channel, 0);
    const int64_t width = net->width[0], D = net->D, a_step = left.size, b_step = right.size, groups = left.groups;
    T* d = first;
    for (int64_t f = 0; f < width; f++, a += PT<V>)
      for (int64_t i = 0; i < D; i++, d += V::L)
        V::store(d, add_products<V>(a, a_step, b + i * PT<V>, b_step, groups, V::load(d)));
  }
  // output sums: coefficient [.][PT] of output q (channel c of `left`) times hidden channel c of `right`
  void add_output(const Planes<T>& left, const Planes<T>& right, int64_t channels) {
    // Channels follow one another as groups do.
    const int64_t H = net->width[net->sines - 1], O = net->O, groups = channels * left.groups;
    const int64_t a_step = left.size, b_step = right.size;
    const T *a = left.at(0, 0), *b = right.at(0, 0);
    T* d = output;
    for (int64_t q = 0; q < O; q++)
      for (int64_t f = 0; f < H; f++, d += V::L)
        V::store(d, add_products<V>(a + q * PT<V>, a_step, b + f * PT<V>, b_step, groups, V::load(d)));
  }
  void add_output_bias(const Planes<T>& left) {
    for (int64_t q = 0; q < net->O; q++)
      for (int64_t g = 0; g < left.groups; g++)
        for (int lane = 0; lane < PT<V>; lane++) sums.doubles[1 + q] += left.at(0, g)[q * PT<V> + lane];
  }
};
