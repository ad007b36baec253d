// Engines A and TxA on digits: the tile of sandwich_pass.inl.h with its two products exchanged.

template <class V>
struct DigitSandwich : SandwichTile<Lane> {
  typename V::Unit unit;
  Products<V> products;
  Digits *layer_digits, scratch;

  DigitSandwich(const SandwichJob<float>& j, Arena& arena, bool backward)
      : SandwichTile(j, arena, backward, groups_of(j.C > 1 + j.K ? j.C : 1 + j.K, backward)) {
    const auto& net = job.net;
    const int64_t wide = C > 1 + K ? C : 1 + K;
    products.plan(arena, net, z, wide, backward && job.parameters ? G : 0);
    scratch = take_digits(arena, wide, G, net.max_width);
    layer_digits = arena.take<Digits>(net.sines);
    // A forward pass needs the digits of a layer once only.
    for (int64_t l = 0; l + 1 < net.sines; l++) {
      const Digits d = backward ? take_digits(arena, 1 + K, G, net.width[l]) : scratch.of(net.width[l]);
      if (arena.base) layer_digits[l] = d;
    }
  }

  void evaluate(const Extent& e) {
    forward<false>(job.hessian != nullptr);
    store_outputs(e);
  }

  void remember() { forward<true>(false); }

  void backward(const Extent& e) {
    upward(e);
    downward(e);
  }

  template <bool KEEP>
  void forward(bool with_hessian) {
    const auto& net = job.net;
    const Shape s = shape();
    const int64_t last = net.sines - 1;
    first_layer<Lane, true>(net, s, x, directions, none, z, layers[0], saved[0]);
    unit.configure();
    for (int64_t l = 1; l < net.sines; l++) {
      quantise(layers[l - 1], net.width[l - 1], 1 + K, 1, layer_digits[l - 1]);
      products.up(unit, l, layers[l - 1], layer_digits[l - 1], 1 + K, [&](int64_t row, int64_t rows, int64_t g) {
        activate<Lane, true>(s, z, net.bias[l], row, rows, none.at(0, g), layers[l], saved[l], g);
      });
    }
    if (with_hessian) std::memset(hessian.base, 0, static_cast<size_t>(C * G * hessian.size) * sizeof(float));
    const TileArray<V>* H = with_hessian ? &hessian : nullptr;
    auto g_of = [&](int64_t l) { return KEEP ? gated[l] : ping[l % 2]; };
    last_gate(KEEP ? adjoint[last] : Planes<float>{}, g_of(last), H);
    for (int64_t l = last; l > 0; l--) {
      const Planes<float> from = g_of(l), next = g_of(l - 1), keep = KEEP ? adjoint[l - 1] : Planes<float>{};
      const Digits digits = scratch.of(net.width[l]);
      quantise(from, net.width[l], C, 0, digits);
      products.down(unit, l, from, digits, C, [&](int64_t row, int64_t rows, int64_t g) {
        gate<Lane>(s, C, z, row, rows, layers[l - 1], saved[l - 1], keep, next, H, g);
      });
    }
    unit.release();
  }

  void upward(const Extent& e) {
    const auto& net = job.net;
    const Shape s = shape();
    first_up();
    unit.configure();
    for (int64_t l = 1; l < net.sines; l++) {
      const Planes<float> in = ping[(l - 1) % 2], out = ping[l % 2];
      const Digits digits = scratch.of(net.width[l - 1]);
      quantise(in, net.width[l - 1], C, 0, digits);
      if (job.parameters) products.weight(unit, l, gated[l], in, digits, C, gradient);
      products.up(unit, l, in, digits, C, [&](int64_t row, int64_t rows, int64_t g) {
        gate_bwd<Lane>(s, C, z, row, rows, layers[l], saved[l], early[l], adjoint[l], coef, out, g);
      });
    }
    unit.release();
    output_up(e);
  }

  void downward(const Extent& e) {
    const auto& net = job.net;
    const Shape s = shape();
    last_down();
    unit.configure();
    for (int64_t l = net.sines - 1; l > 0; l--) {
      const Planes<float> left = ping[l % 2], next = ping[(l - 1) % 2];
      if (job.parameters) {
        gradient.add_bias(l, left);
        products.weight(unit, l, left, layers[l - 1], layer_digits[l - 1], 1 + K, gradient);
      }
      const Digits digits = scratch.of(net.width[l]);
      quantise(left, net.width[l], 1 + K, 0, digits);
      products.down(unit, l, left, digits, 1 + K, [&](int64_t row, int64_t rows, int64_t g) {
        descend<Lane>(s, C, z, row, rows, layers[l - 1], saved[l - 1], early[l - 1], adjoint[l - 1], coef, next, g);
      });
    }
    unit.release();
    first_down(e);
  }
};
