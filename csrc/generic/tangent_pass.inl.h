// One tile of value_bwdbwd: the derivative y' of the value along a tangent of x and of all parameters, and the adjoint
// of <y_bar, y'>. Engine T with one direction, whose tangent enters at x and at every layer: p = A t + A' h + b'.

template <class V>
struct TangentTile : JetTile<V> {
  using T = typename V::T;
  using Base = JetTile<V>;
  using Base::bar, Base::coef, Base::directions, Base::G, Base::gradient, Base::hidden, Base::job, Base::layers;
  using Base::saved, Base::shape, Base::x, Base::x_bar, Base::y, Base::z;
  const Packed<T>& dots;
  const bool weights;
  TileArray<V> x_bar_dots;
  T* extra;

  TangentTile(const JetJob<T>& j, Arena& arena, bool backward)
      : Base(j, arena, backward), dots(*j.dots), weights(j.dots->first_hi) {
    x_bar_dots = arena.planes<V>(1, G, job.net.D);
    extra = arena.take<T>(V::MR * PT<V>);
  }

  template <class Finish>
  void panels(int64_t width, Finish&& finish) {
    for (int64_t row = 0; row < width; row += V::MR)
      for (int64_t g = 0; g < G; g++) finish(row, width - row < V::MR ? width - row : V::MR, g);
  }
  static Planes<T> channel(const Planes<T>& of, int64_t c) { return {of.at(c, 0), of.size, of.groups}; }
  static void add(const T* from, int64_t n, T* into) {
    for (int64_t i = 0; i < n; i += V::L) V::store(into + i, V::add(V::load(into + i), V::load(from + i)));
  }

  void remember() {
    const auto& net = job.net;
    panels(net.width[0], [&](int64_t row, int64_t rows, int64_t g) {
      for (int64_t i = 0; i < rows; i++) {
        first_phase<V>(net, row + i, x.at(0, g), z + i * PT<V>);
        first_slopes<V>(net, shape, row + i, directions, g, z + i * PT<V>);
        first_tangent(row + i, x.at(0, g), z + (V::MR + i) * PT<V>);
      }
      activate<V, true>(shape, z, nullptr, row, rows, coef.at(0, g), layers[0], saved[0], g);
    });
    for (int64_t l = 1; l < net.sines; l++)
      sweep<V, V::MR>(net.up[l], net.width[l], net.width[l - 1], layers[l - 1], 2, z,
                      [&](int64_t row, int64_t rows, int64_t g) {
                        hidden_tangent(l, row, rows, g);
                        activate<V, true>(shape, z, net.bias[l], row, rows, coef.at(0, g), layers[l], saved[l], g);
                      });
  }
  // p += A' x + b'
  void first_tangent(int64_t f, const T* points, T* p) {
    for (int v = 0; v < V::NV; v++) {
      typename V::R sum = V::set(dots.bias[0][f]);
      for (int64_t d = 0; weights && d < job.net.D; d++)
        sum = V::fma(V::set(dots.first_hi[f * job.net.D + d]), V::load(points + (d * V::NV + v) * V::L), sum);
      V::store(p + v * V::L, V::add(V::load(p + v * V::L), sum));
    }
  }
  // p += A' h + b' for the units of one panel
  void hidden_tangent(int64_t l, int64_t row, int64_t rows, int64_t g) {
    const int64_t K = job.net.width[l - 1];
    T* p = z + V::MR * PT<V>;
    if (weights) {
      multiply<V, V::MR>(dots.up[l] + row * K, layers[l - 1].at(0, g), K, extra);
      add(extra, rows * PT<V>, p);
    }
    for (int64_t i = 0; i < rows; i++)
      for (int v = 0; v < V::NV; v++, p += V::L) V::store(p, V::add(V::load(p), V::set(dots.bias[l][row + i])));
  }

  void cotangents(const Extent& e) {
    load_cotangents<V>(nullptr, 1, job.net.O, 1, e, bar, 0);
    load_cotangents<V>(job.first_bar, 1, job.net.O, job.sigma, e, bar, 1);
    if (job.first) store_tangent(e);
  }
  // y' = W_o t + W_o' h + b_o'
  void store_tangent(const Extent& e) {
    const int64_t O = job.net.O;
    const Planes<T>& top = layers[job.net.sines - 1];
    const TileArray<V> along = channel(y, 0), more = channel(y, 1);
    output_layer<V>(job.net, channel(top, 1), 1, false, z, along);
    if (weights) output_layer<V>(dots, top, 1, false, z, more);
    for (int64_t g = 0; g < G; g++) {
      if (weights) add(more.at(0, g), O * PT<V>, along.at(0, g));
      for (int64_t q = 0; q < O; q++)
        for (int v = 0; v < V::NV; v++) {
          T* p = along.at(0, g) + (q * V::NV + v) * V::L;
          V::store(p, V::add(V::load(p), V::set(dots.out_b[q])));
        }
    }
    store_rows<V>(along, 0, 1, O, job.sigma, e, job.first);
  }

  void backward(const Extent& e) {
    const auto& net = job.net;
    last_bwd();
    for (int64_t l = net.sines - 1; l > 0; l--) {
      const Planes<T> left = hidden[l % 2], next = hidden[(l - 1) % 2];
      if (job.parameters) gradient.add_bias(l, left), gradient.add_weight(l, left, layers[l - 1], 2);
      sweep<V, V::MR>(
          net.down[l], net.width[l - 1], net.width[l], left, 2, z, [&](int64_t row, int64_t rows, int64_t g) {
            if (weights) {
              multiply<V, V::MR>(dots.down[l] + row * net.width[l], left.at(1, g), net.width[l], extra);
              add(extra, rows * PT<V>, z);
            }
            activate_bwd<V>(shape, z, row, rows, coef.at(0, g), layers[l - 1], saved[l - 1], next, nullptr, g);
          });
    }
    if (job.parameters) Base::first_sums();
    if (job.x_bar) points_bwd(e);
  }
  void points_bwd(const Extent& e) {
    const int64_t D = job.net.D;
    first_layer_bwd<V>(job.net, hidden[0], 0, 1, x_bar);
    if (weights) first_layer_bwd<V>(dots, hidden[0], 1, 1, x_bar_dots);
    for (int64_t g = 0; weights && g < G; g++) add(x_bar_dots.at(0, g), D * PT<V>, x_bar.at(0, g));
    store_rows<V>(x_bar, 0, 1, D, 1, e, job.x_bar);
  }
  // From the cotangent of y' to those of the last sine layer's phases and slopes.
  void last_bwd() {
    const auto& net = job.net;
    const int64_t last = net.sines - 1;
    if (job.parameters) gradient.add_output(bar, layers[last], 2);
    panels(net.width[last], [&](int64_t row, int64_t rows, int64_t g) {
      output_layer_bwd<V>(net, bar, 2, row, rows, g, z);
      if (weights) output_layer_bwd<V>(dots, channel(bar, 1), 1, row, rows, g, z);
      activate_bwd<V>(shape, z, row, rows, coef.at(0, g), layers[last], saved[last], hidden[last % 2], nullptr, g);
    });
  }
};
