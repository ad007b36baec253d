// One tile of engine T. Its backward pass runs the forward pass of the tile again and keeps that in the cache.

// Groups of a tile: enough columns to amortise the traffic of the weight gradients, a divisor of the segment.
template <class V>
int64_t tile_groups(int64_t channels) {
  int64_t groups = 96 / (PT<V> * channels);
  if (groups < 1) groups = 1;
  while (SEGMENT_POINTS / PT<V> % groups) groups--;
  return groups;
}

template <class T>
void store_pixels(const Pixels& p, int64_t index, T y) {
  const double v = p.gain * static_cast<double>(y) + p.offset;
  if (p.type == PixelType::f32) static_cast<float*>(p.out)[index] = static_cast<float>(v);
  if (p.type == PixelType::f64) static_cast<double*>(p.out)[index] = v;
  // A comparison with NaN is false: NaN becomes 0.
  const double unit = v > 0 ? (v < 1 ? v : 1.0) : 0.0;
  if (p.type == PixelType::u8) static_cast<uint8_t*>(p.out)[index] = static_cast<uint8_t>(std::nearbyint(unit * 255));
  if (p.type == PixelType::u16)
    static_cast<uint16_t*>(p.out)[index] = static_cast<uint16_t>(std::nearbyint(unit * 65535));
}

// The tape: what a forward pass leaves for its backward pass, per group of points, layer l >= 1 and panel the products
// [channel][MR][PT]. Numbers of one group, and of N points.
template <class V>
int64_t tape_layer(int64_t width, int64_t channels) {
  return (width + V::MR - 1) / V::MR * V::MR * channels * PT<V>;
}
template <class V>
int64_t tape_group(const int64_t* width, int64_t sines, int64_t channels) {
  int64_t size = 0;
  for (int64_t l = 1; l < sines; l++) size += tape_layer<V>(width[l], channels);
  return size;
}
template <class V>
int64_t tape_size(const int64_t* width, int64_t sines, int64_t channels, int64_t N) {
  return (N + PT<V> - 1) / PT<V> * tape_group<V>(width, sines, channels);
}

template <class V>
struct JetTile {
  using T = typename V::T;
  const JetJob<T>& job;
  Shape shape;
  int64_t G, C, group0 = 0, tape_step;
  TileArray<V> x, directions, coef, y, bar, x_bar, V_bar, M_bar;
  Planes<T> hidden[2], *layers, *saved;
  T* z;
  Gradient<V> gradient;

  JetTile(const JetJob<T>& j, Arena& arena, bool backward)
      : JetTile(j, arena, backward, backward ? tile_groups<V>(1 + j.K + j.R) : 1) {}
  JetTile(const JetJob<T>& j, Arena& arena, bool backward, int64_t groups)
      : job(j), shape{j.K, j.R, j.n_terms, j.terms}, G(groups), C(shape.channels()) {
    const auto& net = job.net;
    tape_step = tape_group<V>(net.width, net.sines, C);
    x = arena.planes<V>(1, G, net.D);
    directions = arena.planes<V>(job.K, G, net.D);
    coef = arena.planes<V>(1, G, job.n_terms);
    y = arena.planes<V>(C, G, net.O);
    z = arena.take<T>(C * V::MR * PT<V>);
    if (!backward) {
      for (auto& h : hidden) h = arena.planes<V>(C, G, net.max_width);
      return;
    }
    bar = arena.planes<V>(C, G, net.O);
    x_bar = arena.planes<V>(1, G, net.D);
    V_bar = arena.planes<V>(job.K, G, net.D);
    M_bar = arena.planes<V>(1, G, job.n_terms);
    for (auto& h : hidden) h = arena.planes<V>(C, G, net.max_width);
    layers = arena.take<Planes<T>>(net.sines);
    saved = arena.take<Planes<T>>(net.sines);
    for (int64_t l = 0; l < net.sines; l++) {
      Planes<T> a = arena.planes<V>(C, G, net.width[l]), b = arena.planes<V>(C, G, net.width[l]);
      if (arena.base) layers[l] = a, saved[l] = b;
    }
    if (job.parameters) gradient.plan(arena, net, job.layout, C * G * PT<V>);
  }

  // What does not change from tile to tile is loaded once.
  void load_constants() {
    Extent none{0, 1, 1};
    if (!job.V_rows) load_rows<V>(job.V, false, job.K, job.net.D, 1 / job.sigma, none, directions);
    if (!job.M_rows) load_terms<V>(job.M, false, job.R, job.K, job.terms, job.n_terms, none, coef);
  }

  void load(const Extent& e) {
    group0 = e.first / PT<V>;
    load_points<V>(job.points, job.net.D, e, x);
    if (job.V_rows) load_rows<V>(job.V, true, job.K, job.net.D, 1 / job.sigma, e, directions);
    if (job.M_rows) load_terms<V>(job.M, true, job.R, job.K, job.terms, job.n_terms, e, coef);
  }

  template <bool SAVE>
  void forward() {
    const auto& net = job.net;
    auto in = [&](int64_t l) { return SAVE ? layers[l] : hidden[l % 2]; };
    auto keep = [&](int64_t l) { return SAVE ? saved[l] : Planes<T>{}; };
    first_layer<V, SAVE>(net, shape, x, directions, coef, z, in(0), keep(0));
    int64_t start = 0;
    for (int64_t l = 1; l < net.sines; start += tape_layer<V>(net.width[l++], C)) {
      const Planes<T> out = in(l), store = keep(l);
      sweep_into<V, V::MR>(
          net.up[l], net.width[l], net.width[l - 1], in(l - 1), C,
          [&](int64_t row, int64_t g) { return job.tape ? tape(start, row, g) : z; },
          [&](const T* products, int64_t row, int64_t rows, int64_t g) {
            activate<V, SAVE>(shape, products, net.bias[l], row, rows, coef.at(0, g), out, store, g);
          });
    }
  }

  // Groups past the last point, which only a backward pass has, stand for the last group.
  T* tape(int64_t start, int64_t row, int64_t g) const {
    const int64_t last = (job.N - 1) / PT<V>, group = group0 + g < last ? group0 + g : last;
    return job.tape + group * tape_step + start + row * C * PT<V>;
  }

  void remember() { job.tape ? recall() : forward<true>(); }

  void recall() {
    const auto& net = job.net;
    first_layer<V, true>(net, shape, x, directions, coef, z, layers[0], saved[0]);
    int64_t start = 0;
    for (int64_t l = 1; l < net.sines; start += tape_layer<V>(net.width[l++], C))
      for (int64_t row = 0; row < net.width[l]; row += V::MR)
        for (int64_t g = 0; g < G; g++)
          activate<V, true>(shape, tape(start, row, g), net.bias[l], row,
                            net.width[l] - row < V::MR ? net.width[l] - row : V::MR, coef.at(0, g), layers[l], saved[l],
                            g);
  }

  void evaluate(const Extent& e) {
    forward<false>();
    store_outputs(e);
  }

  void store_outputs(const Extent& e) {
    const int64_t O = job.net.O;
    output_layer<V>(job.net, hidden[(job.net.sines - 1) % 2], C, true, z, y);
    store_rows<V>(y, 0, 1, O, 1, e, job.y);
    store_rows<V>(y, 1, job.K, O, job.sigma, e, job.first);
    store_rows<V>(y, 1 + job.K, job.R, O, job.sigma * job.sigma, e, job.second);
    if (job.pixels.type == PixelType::none) return;
    for (int64_t j = 0; j < e.count; j++)
      for (int64_t q = 0; q < O; q++)
        store_pixels(job.pixels, (e.first + j) * O + q, y.at(0, j / PT<V>)[q * PT<V> + j % PT<V>]);
  }

  void cotangents(const Extent& e) {
    const double s = job.sigma;
    if (job.loss.kind == LossKind::none) {
      load_cotangents<V>(job.y_bar, 1, job.net.O, 1, e, bar, 0);
      load_cotangents<V>(job.first_bar, job.K, job.net.O, s, e, bar, 1);
      load_cotangents<V>(job.second_bar, job.R, job.net.O, s * s, e, bar, 1 + job.K);
      return;
    }
    output_layer<V>(job.net, layers[job.net.sines - 1], C, true, z, y);
    load_cotangents<V>(nullptr, C, job.net.O, 1, e, bar, 0);
    for (int64_t g = 0; g < G; g++) {
      int64_t count = e.count - g * PT<V> < PT<V> ? e.count - g * PT<V> : PT<V>;
      LossTile<T> t{y.at(0, g),   y.at(1, g),        y.at(1 + job.K, g),
                    bar.at(0, g), bar.at(1, g),      bar.at(1 + job.K, g),
                    PT<V>,        y.groups * y.size, s,
                    s * s};
      gradient.sums.doubles[0] += tile_loss<V>(job.loss, t, job.K, job.net.O, e.first + g * PT<V>, count);
    }
  }

  void backward(const Extent& e) {
    const auto& net = job.net;
    const int64_t last = net.sines - 1;
    last_bwd();
    for (int64_t l = last; l > 0; l--) {
      const Planes<T> left = hidden[l % 2], next = hidden[(l - 1) % 2];
      if (job.parameters) gradient.add_bias(l, left), gradient.add_weight(l, left, layers[l - 1], C);
      sweep<V, V::MR>(
          net.down[l], net.width[l - 1], net.width[l], left, C, z, [&](int64_t row, int64_t rows, int64_t g) {
            activate_bwd<V>(shape, z, row, rows, coef.at(0, g), layers[l - 1], saved[l - 1], next, forms_bar(g), g);
          });
    }
    first_bwd(e);
  }

  T* forms_bar(int64_t g) const { return job.M_bar ? M_bar.at(0, g) : nullptr; }

  // From the cotangents of the outputs to those of the last sine layer's phases.
  void last_bwd() {
    const auto& net = job.net;
    const int64_t last = net.sines - 1;
    if (job.M_bar) std::memset(M_bar.base, 0, G * M_bar.size * sizeof(T));
    if (job.parameters) gradient.add_output(bar, layers[last], C), gradient.add_output_bias(bar);
    for (int64_t row = 0; row < net.width[last]; row += V::MR) {
      const int64_t rows = net.width[last] - row < V::MR ? net.width[last] - row : V::MR;
      for (int64_t g = 0; g < G; g++) {
        output_layer_bwd<V>(net, bar, C, row, rows, g, z);
        activate_bwd<V>(shape, z, row, rows, coef.at(0, g), layers[last], saved[last], hidden[last % 2], forms_bar(g),
                        g);
      }
    }
  }

  void first_sums() {
    const Planes<T> left = hidden[0];
    gradient.add_bias(0, left);
    gradient.add_first(left, 0, x, 0);
    for (int64_t k = 0; k < job.K; k++) gradient.add_first(left, 1 + k, directions, k);
  }

  void first_bwd(const Extent& e) {
    const Planes<T> left = hidden[0];
    if (job.parameters) first_sums();
    if (job.x_bar) {
      first_layer_bwd<V>(job.net, left, 0, 1, x_bar);
      store_rows<V>(x_bar, 0, 1, job.net.D, 1, e, job.x_bar);
    }
    if (job.V_bar) {
      first_layer_bwd<V>(job.net, left, 1, job.K, V_bar);
      store_rows<V>(V_bar, 0, job.K, job.net.D, 1 / job.sigma, e, job.V_bar);
    }
    if (job.M_bar) store_forms(e);
  }

  void store_forms(const Extent& e) {
    const int64_t K = job.K;
    for (int64_t j = 0; j < e.count; j++)
      for (int64_t t = 0; t < job.n_terms; t++) {
        const Term& term = job.terms[t];
        T* m = job.M_bar + ((e.first + j) * job.R + term.form) * K * K;
        m[term.k * K + term.j] = m[term.j * K + term.k] = M_bar.at(0, j / PT<V>)[t * PT<V> + j % PT<V>];
      }
  }
};
