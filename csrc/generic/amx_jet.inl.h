// Engine T on digits: the tile of jet_pass.inl.h with its two products exchanged.

template <class V>
struct DigitJet : JetTile<Lane> {
  typename V::Unit unit;
  Products<V> products;
  Digits *layer_digits, scratch, odd;
  bool direct;

  DigitJet(const JetJob<float>& j, Arena& arena, bool backward)
      : JetTile(j, arena, backward, groups_of(1 + j.K + j.R, backward)) {
    const auto& net = job.net;
    products.plan(arena, net, z, C, backward && job.parameters ? G : 0);
    scratch = take_digits(arena, C, G, net.max_width);
    direct = !backward && C == 1 && all_usable(net);
    if (direct) odd = take_digits(arena, C, G, net.max_width);
    layer_digits = arena.take<Digits>(net.sines);
    for (int64_t l = 0; backward && l + 1 < net.sines; l++) {
      const Digits d = take_digits(arena, C, G, net.width[l]);
      if (arena.base) layer_digits[l] = d;
    }
  }

  void evaluate(const Extent& e) {
    unit.configure();
    if (!direct || !values(unit, job.net, x, scratch, odd, products.sums, hidden[(job.net.sines - 1) % 2]))
      forward<false>();
    unit.release();
    store_outputs(e);
  }

  void remember() {
    unit.configure();
    forward<true>();
    unit.release();
  }

  template <bool SAVE>
  void forward() {
    const auto& net = job.net;
    auto in = [&](int64_t l) { return SAVE ? layers[l] : hidden[l % 2]; };
    auto keep = [&](int64_t l) { return SAVE ? saved[l] : Planes<float>{}; };
    first_layer<Lane, SAVE>(net, shape, x, directions, coef, z, in(0), keep(0));
    for (int64_t l = 1; l < net.sines; l++) {
      const Planes<float> from = in(l - 1), out = in(l), store = keep(l);
      const Digits digits = SAVE ? layer_digits[l - 1] : scratch.of(net.width[l - 1]);
      quantise(from, net.width[l - 1], C, 1, digits);
      products.up(unit, l, from, digits, C, [&](int64_t row, int64_t rows, int64_t g) {
        activate<Lane, SAVE>(shape, z, net.bias[l], row, rows, coef.at(0, g), out, store, g);
      });
    }
  }

  void backward(const Extent& e) {
    const auto& net = job.net;
    last_bwd();
    unit.configure();
    for (int64_t l = net.sines - 1; l > 0; l--) {
      const Planes<float> left = hidden[l % 2], next = hidden[(l - 1) % 2];
      if (job.parameters) {
        gradient.add_bias(l, left);
        products.weight(unit, l, left, layers[l - 1], layer_digits[l - 1], C, gradient);
      }
      const Digits digits = scratch.of(net.width[l]);
      quantise(left, net.width[l], C, 0, digits);
      products.down(unit, l, left, digits, C, [&](int64_t row, int64_t rows, int64_t g) {
        activate_bwd<Lane>(shape, z, row, rows, coef.at(0, g), layers[l - 1], saved[l - 1], next, forms_bar(g), g);
      });
    }
    unit.release();
    first_bwd(e);
  }
};
