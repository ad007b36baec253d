// One tile of engines A and TxA: values and tangents up, adjoints down, and backward the way up and down again.

template <class V>
struct SandwichTile {
  using T = typename V::T;
  const SandwichJob<T>& job;
  int64_t G, C, K, n_terms;
  Term* pairs;
  TileArray<V> x, directions, combos, coef, none, y, jacobian, hessian, y_bar, J_bar, x_bar, V_bar;
  Planes<T> ping[2], *layers, *saved, *adjoint, *gated, *early;
  T* z;
  Gradient<V> gradient;

  SandwichTile(const SandwichJob<T>& j, Arena& arena, bool backward)
      : SandwichTile(j, arena, backward, backward ? tile_groups<V>(j.C > 1 + j.K ? j.C : 1 + j.K) : 1) {}
  SandwichTile(const SandwichJob<T>& j, Arena& arena, bool backward, int64_t groups)
      : job(j), G(groups), C(j.C), K(j.K), n_terms(j.K * (j.K + 1) / 2) {
    const auto& net = job.net;
    const int64_t wide = C > 1 + K ? C : 1 + K;
    pairs = arena.take<Term>(n_terms);
    x = arena.planes<V>(1, G, net.D);
    directions = arena.planes<V>(K, G, net.D);
    combos = arena.planes<V>(C, G, net.O);
    coef = arena.planes<V>(C, G, n_terms);
    none = arena.planes<V>(1, G, 1);
    y = arena.planes<V>(wide, G, net.O);
    jacobian = arena.planes<V>(C, G, net.D);
    hessian = arena.planes<V>(C, G, n_terms);
    z = arena.take<T>(wide * V::MR * PT<V>);
    for (auto& p : ping) p = arena.planes<V>(wide, G, net.max_width);
    layers = stack(arena, 1 + K, true);
    saved = stack(arena, 1 + K, true);
    adjoint = stack(arena, C, backward);
    gated = stack(arena, C, backward);
    early = stack(arena, 1, backward);
    y_bar = arena.planes<V>(1, G, net.O);
    J_bar = arena.planes<V>(C, G, net.D);
    x_bar = arena.planes<V>(1, G, net.D);
    V_bar = arena.planes<V>(K, G, net.D);
    if (backward && job.parameters) gradient.plan(arena, net, job.layout, wide * G * PT<V>);
    if (!arena.base) return;
    int64_t t = 0;
    for (int32_t k = 0; k < K; k++)
      for (int32_t i = k; i < K; i++) pairs[t++] = {0, k, i};
  }
  // `channels` planes for every sine layer; layers that are not kept get none and the sweep uses the two ping-pong
  // planes.
  Planes<T>* stack(Arena& arena, int64_t channels, bool kept) {
    auto* s = arena.take<Planes<T>>(job.net.sines);
    for (int64_t l = 0; l < job.net.sines; l++) {
      Planes<T> p = kept ? arena.planes<V>(channels, G, job.net.width[l]) : Planes<T>{};
      if (arena.base) s[l] = p;
    }
    return s;
  }
  Shape shape() const { return {K, 0, n_terms, pairs}; }

  void load_constants() {
    Extent any{0, 1, 1};
    if (!job.V_rows) load_rows<V>(job.V, false, K, job.net.D, 1 / job.sigma, any, directions);
    if (!job.E_rows) load_rows<V>(job.E, false, C, job.net.O, 1, any, combos);
  }
  void load(const Extent& e) {
    load_points<V>(job.points, job.net.D, e, x);
    if (job.V_rows) load_rows<V>(job.V, true, K, job.net.D, 1 / job.sigma, e, directions);
    if (job.E_rows) load_rows<V>(job.E, true, C, job.net.O, 1, e, combos);
  }

  // Values and tangents up, adjoints down. KEEP: adjoints of all layers stay for the backward pass.
  template <bool KEEP>
  void forward(bool with_hessian) {
    const auto& net = job.net;
    const Shape s = shape();
    const int64_t last = net.sines - 1;
    first_layer<V, true>(net, s, x, directions, none, z, layers[0], saved[0]);
    for (int64_t l = 1; l < net.sines; l++)
      sweep<V, V::MR>(net.up[l], net.width[l], net.width[l - 1], layers[l - 1], 1 + K, z,
                      [&](int64_t row, int64_t rows, int64_t g) {
                        activate<V, true>(s, z, net.bias[l], row, rows, none.at(0, g), layers[l], saved[l], g);
                      });
    if (with_hessian) std::memset(hessian.base, 0, C * G * hessian.size * sizeof(T));
    const TileArray<V>* H = with_hessian ? &hessian : nullptr;
    auto g_of = [&](int64_t l) { return KEEP ? gated[l] : ping[l % 2]; };
    last_gate(KEEP ? adjoint[last] : Planes<T>{}, g_of(last), H);
    for (int64_t l = last; l > 0; l--) {
      const Planes<T> next = g_of(l - 1), keep = KEEP ? adjoint[l - 1] : Planes<T>{};
      sweep<V, V::MR>(net.down[l], net.width[l - 1], net.width[l], g_of(l), C, z,
                      [&](int64_t row, int64_t rows, int64_t g) {
                        gate<V>(s, C, z, row, rows, layers[l - 1], saved[l - 1], keep, next, H, g);
                      });
    }
  }
  // The combinations enter at the last sine layer.
  void last_gate(const Planes<T>& keep, const Planes<T>& out, const TileArray<V>* H) {
    const auto& net = job.net;
    const int64_t last = net.sines - 1;
    for (int64_t row = 0; row < net.width[last]; row += V::MR) {
      const int64_t rows = net.width[last] - row < V::MR ? net.width[last] - row : V::MR;
      for (int64_t g = 0; g < G; g++) {
        output_layer_bwd<V>(net, combos, C, row, rows, g, z);
        gate<V>(shape(), C, z, row, rows, layers[last], saved[last], keep, out, H, g);
      }
    }
  }
  void remember() { forward<true>(false); }

  void evaluate(const Extent& e) {
    forward<false>(job.hessian != nullptr);
    store_outputs(e);
  }

  void store_outputs(const Extent& e) {
    const auto& net = job.net;
    if (job.y) {
      output_layer<V>(net, layers[net.sines - 1], 1, true, z, y);
      store_rows<V>(y, 0, 1, net.O, 1, e, job.y);
    }
    first_layer_bwd<V>(net, ping[0], 0, C, jacobian);
    store_rows<V>(jacobian, 0, C, net.D, 1, e, job.jacobian);
    if (!job.hessian) return;
    for (int64_t j = 0; j < e.count; j++)
      for (int64_t c = 0; c < C; c++)
        for (int64_t t = 0; t < n_terms; t++) {
          T* H = job.hessian + ((e.first + j) * C + c) * K * K;
          H[pairs[t].k * K + pairs[t].j] = H[pairs[t].j * K + pairs[t].k] =
              static_cast<T>(hessian.at(c, j / PT<V>)[t * PT<V> + j % PT<V>] * job.sigma * job.sigma);
        }
  }

  void cotangents(const Extent& e) {
    const auto& net = job.net;
    std::memset(coef.base, 0, C * G * coef.size * sizeof(T));
    for (int64_t j = 0; job.hessian_bar && j < e.count; j++)
      for (int64_t c = 0; c < C; c++)
        for (int64_t t = 0; t < n_terms; t++) {
          const T* H = job.hessian_bar + ((e.first + j) * C + c) * K * K;
          const int64_t k = pairs[t].k, i = pairs[t].j;
          const double both = k == i ? H[k * K + k] : double(H[k * K + i]) + H[i * K + k];
          coef.at(c, j / PT<V>)[t * PT<V> + j % PT<V>] = static_cast<T>(both * job.sigma * job.sigma);
        }
    const bool given = job.loss.kind == LossKind::none;
    load_cotangents<V>(given ? job.y_bar : nullptr, 1, net.O, 1, e, y_bar, 0);
    load_cotangents<V>(given ? job.jacobian_bar : nullptr, C, net.D, 1, e, J_bar, 0);
    if (given) return;
    output_layer<V>(net, layers[net.sines - 1], 1, true, z, y);
    first_layer_bwd<V>(net, gated[0], 0, C, jacobian);
    for (int64_t g = 0; g < G; g++) {
      int64_t count = e.count - g * PT<V> < PT<V> ? e.count - g * PT<V> : PT<V>;
      LossTile<T> t{y.at(0, g),
                    jacobian.at(0, g),
                    nullptr,
                    y_bar.at(0, g),
                    J_bar.at(0, g),
                    nullptr,
                    jacobian.groups * jacobian.size,
                    PT<V>,
                    1,
                    1};
      gradient.sums.doubles[0] += tile_loss<V>(job.loss, t, net.D, net.O, e.first + g * PT<V>, count);
    }
  }

  void backward(const Extent& e) {
    upward(e);
    downward(e);
  }

  // (20) to (23)
  void upward(const Extent& e) {
    const auto& net = job.net;
    const Shape s = shape();
    first_up();
    for (int64_t l = 1; l < net.sines; l++) {
      const Planes<T> in = ping[(l - 1) % 2], out = ping[l % 2];
      if (job.parameters) gradient.add_weight(l, gated[l], in, C);
      sweep<V, V::MR>(net.up[l], net.width[l], net.width[l - 1], in, C, z, [&](int64_t row, int64_t rows, int64_t g) {
        gate_bwd<V>(s, C, z, row, rows, layers[l], saved[l], early[l], adjoint[l], coef, out, g);
      });
    }
    output_up(e);
  }
  void first_up() {
    const auto& net = job.net;
    if (job.parameters)
      for (int64_t c = 0; c < C; c++) gradient.add_first(gated[0], c, J_bar, c);
    for (int64_t row = 0; row < net.width[0]; row += V::MR) {
      const int64_t rows = net.width[0] - row < V::MR ? net.width[0] - row : V::MR;
      for (int64_t g = 0; g < G; g++) {
        lift(row, rows, g);
        gate_bwd<V>(shape(), C, z, row, rows, layers[0], saved[0], early[0], adjoint[0], coef, ping[0], g);
      }
    }
  }
  void output_up(const Extent& e) {
    const auto& net = job.net;
    const Planes<T> top = ping[(net.sines - 1) % 2];
    if (job.parameters) gradient.add_output(combos, top, C);
    if (!job.E_bar) return;
    output_layer<V>(net, top, C, false, z, y);
    store_rows<V>(y, 0, C, net.O, 1, e, job.E_bar);
  }
  // z (c) [rows][PT] = A_0 J_bar
  void lift(int64_t row, int64_t rows, int64_t g) {
    for (int64_t c = 0; c < C; c++)
      for (int64_t i = 0; i < rows; i++)
        for (int v = 0; v < V::NV; v++) {
          typename V::R a = V::set(0);
          for (int64_t d = 0; d < job.net.D; d++)
            a = V::fma(V::set(job.net.first_hi[(row + i) * job.net.D + d]),
                       V::load(J_bar.at(c, g) + (d * V::NV + v) * V::L), a);
          V::store(z + c * V::MR * PT<V> + (i * V::NV + v) * V::L, a);
        }
  }

  // (24) to (27)
  void downward(const Extent& e) {
    const auto& net = job.net;
    const Shape s = shape();
    last_down();
    for (int64_t l = net.sines - 1; l > 0; l--) {
      const Planes<T> left = ping[l % 2], next = ping[(l - 1) % 2];
      if (job.parameters) gradient.add_bias(l, left), gradient.add_weight(l, left, layers[l - 1], 1 + K);
      sweep<V, V::MR>(
          net.down[l], net.width[l - 1], net.width[l], left, 1 + K, z, [&](int64_t row, int64_t rows, int64_t g) {
            descend<V>(s, C, z, row, rows, layers[l - 1], saved[l - 1], early[l - 1], adjoint[l - 1], coef, next, g);
          });
    }
    first_down(e);
  }
  void last_down() {
    const auto& net = job.net;
    const int64_t last = net.sines - 1, plane = V::MR * PT<V>;
    if (job.parameters) gradient.add_output(y_bar, layers[last], 1), gradient.add_output_bias(y_bar);
    for (int64_t row = 0; row < net.width[last]; row += V::MR) {
      const int64_t rows = net.width[last] - row < V::MR ? net.width[last] - row : V::MR;
      for (int64_t g = 0; g < G; g++) {
        output_layer_bwd<V>(net, y_bar, 1, row, rows, g, z);
        std::memset(z + plane, 0, K * plane * sizeof(T));
        descend<V>(shape(), C, z, row, rows, layers[last], saved[last], early[last], adjoint[last], coef,
                   ping[last % 2], g);
      }
    }
  }
  void first_down(const Extent& e) {
    const auto& net = job.net;
    if (job.parameters) {
      gradient.add_bias(0, ping[0]);
      gradient.add_first(ping[0], 0, x, 0);
      for (int64_t k = 0; k < K; k++) gradient.add_first(ping[0], 1 + k, directions, k);
    }
    if (job.x_bar) first_layer_bwd<V>(net, ping[0], 0, 1, x_bar), store_rows<V>(x_bar, 0, 1, net.D, 1, e, job.x_bar);
    if (job.V_bar)
      first_layer_bwd<V>(net, ping[0], 1, K, V_bar), store_rows<V>(V_bar, 0, K, net.D, 1 / job.sigma, e, job.V_bar);
  }
};
