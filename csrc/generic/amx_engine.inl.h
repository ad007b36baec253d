// The table of kernels on digits. What they do not cover goes to AVX-512: networks without a hidden matrix that digits
// serve.
#include "amx_tiles.inl.h"
#include "amx_digits.inl.h"
#include "amx_pack.inl.h"
#include "amx_products.inl.h"
#include "amx_value.inl.h"
#include "amx_jet.inl.h"
#include "amx_sandwich.inl.h"

template <class V, template <class> class Tile, class Job, void (*Kernels<float>::*PLAIN)(const Job&, Schedule&, void*)>
void digit_forward(const Job& job, Schedule& schedule, void* workspace) {
  covered(job.net) ? forward_pass<V, Tile, Job>(job, schedule, workspace)
                   : (avx512_f32.*PLAIN)(job, schedule, workspace);
}

template <class V, template <class> class Tile, class Job, void (*Kernels<float>::*PLAIN)(const Job&, Schedule&, void*)>
void digit_backward(const Job& job, Schedule& schedule, void* workspace) {
  covered(job.net) ? backward_pass<V, Tile, Job>(job, schedule, workspace)
                   : (avx512_f32.*PLAIN)(job, schedule, workspace);
}

template <class V, template <class> class Tile, class Job, bool BACKWARD, size_t (*Kernels<float>::*PLAIN)(const Job&)>
size_t digit_bytes(const Job& job) {
  return covered(job.net) ? pass_bytes<V, Tile, Job, BACKWARD>(job) : (avx512_f32.*PLAIN)(job);
}

// Tangents of parameters have no digits.
inline size_t tangent_bytes(const JetJob<float>& job) {
  return avx512_f32.value_bwdbwd_bytes(job);
}
inline void tangent_backward(const JetJob<float>& job, Schedule& schedule, void* workspace) {
  avx512_f32.value_bwdbwd(job, schedule, workspace);
}

// Products of digits are made again in less time than they are read.
inline int64_t no_tape(const int64_t*, int64_t, int64_t, int64_t) {
  return 0;
}

template <class V>
constexpr Kernels<float> digit_kernels() {
  using Jet = JetJob<float>;
  using Sandwich = SandwichJob<float>;
  using Table = Kernels<float>;
  return {V::MR,
          pack_panels<Lane>,
          output_rows<Lane>,
          V::L,
          digit_bytes<V, DigitJet, Jet, false, &Table::jet_fwd_bytes>,
          digit_forward<V, DigitJet, Jet, &Table::jet_fwd>,
          digit_bytes<V, DigitJet, Jet, true, &Table::jet_bwd_bytes>,
          digit_backward<V, DigitJet, Jet, &Table::jet_bwd>,
          no_tape,
          tangent_bytes,
          tangent_backward,
          digit_bytes<V, DigitSandwich, Sandwich, false, &Table::sandwich_fwd_bytes>,
          digit_forward<V, DigitSandwich, Sandwich, &Table::sandwich_fwd>,
          digit_bytes<V, DigitSandwich, Sandwich, true, &Table::sandwich_bwd_bytes>,
          digit_backward<V, DigitSandwich, Sandwich, &Table::sandwich_bwd>,
          sinpi_array<Lane>,
          pack_digits};
}
