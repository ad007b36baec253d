// Every algorithm, once, on a small vector type; each instruction-set unit includes this inside its own target region.
#include "base.inl.h"
#include "sine.inl.h"
#include "gemm.inl.h"
#include "tile.inl.h"
#include "jet.inl.h"
#include "jet_pass.inl.h"
#include "sandwich.inl.h"
#include "sandwich_pass.inl.h"

template <class V>
constexpr Kernels<typename V::T> kernels() {
  static_assert(SEGMENT_POINTS % PT<V> == 0 && BLOCK_POINTS % PT<V> == 0, "tiles must divide segments and blocks");
  return {V::MR,
          output_rows<V>,
          V::L,
          jet_fwd_bytes<V>,
          jet_fwd<V>,
          jet_bwd_bytes<V>,
          jet_bwd<V>,
          sandwich_fwd_bytes<V>,
          sandwich_fwd<V>,
          sandwich_bwd_bytes<V>,
          sandwich_bwd<V>,
          sinpi_array<V>};
}
