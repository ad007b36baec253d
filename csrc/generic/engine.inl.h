// Every algorithm, once, on a small vector type; each instruction-set unit includes this inside its own target region.
#include "base.inl.h"
#include "sine.inl.h"
#include "pack.inl.h"
#include "gemm.inl.h"
#include "tile.inl.h"
#include "jet.inl.h"
#include "jet_pass.inl.h"
#include "tangent_pass.inl.h"
#include "sandwich.inl.h"
#include "sandwich_pass.inl.h"
#include "passes.inl.h"

template <class V>
constexpr Kernels<typename V::T> kernels() {
  static_assert(SEGMENT_POINTS % PT<V> == 0 && BLOCK_POINTS % PT<V> == 0, "tiles must divide segments and blocks");
  using Jet = JetJob<typename V::T>;
  using Sandwich = SandwichJob<typename V::T>;
  return {V::MR,
          pack_panels<V>,
          output_rows<V>,
          V::L,
          pass_bytes<V, JetTile, Jet, false>,
          forward_pass<V, JetTile, Jet>,
          pass_bytes<V, JetTile, Jet, true>,
          backward_pass<V, JetTile, Jet>,
          tape_size<V>,
          pass_bytes<V, TangentTile, Jet, true>,
          backward_pass<V, TangentTile, Jet>,
          pass_bytes<V, SandwichTile, Sandwich, false>,
          forward_pass<V, SandwichTile, Sandwich>,
          pass_bytes<V, SandwichTile, Sandwich, true>,
          backward_pass<V, SandwichTile, Sandwich>,
          sinpi_array<V>};
}
