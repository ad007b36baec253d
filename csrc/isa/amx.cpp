// AMX-INT8: products of exact digits, at two to three times the fp32 peak. The rest of every pass is AVX-512.
// "amx-emulated" is the same algorithm without the tile unit, for tests: it must be asked for by name.
#include <cmath>
#include <cstring>

#include "../engine.h"
#include "../generic/target.h"
#if defined(__x86_64__)
#if !defined(__clang__)
// The headers of GCC 12 leave a vector undefined on purpose and then warn about it.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#if __has_include(<amxint8intrin.h>) || __has_include(<amxintrin.h>)
// The assembler of a compiler that knows the intrinsics knows the instructions.
#define FASTSIREN_TILES
#endif
#endif

FASTSIREN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,fma,avx2")

namespace fastsiren {

extern const Kernels<float> avx512_f32;
extern const Kernels<double> avx512_f64;
extern const Isa avx512, amx, amx_emulated;

namespace {

#include "avx512_vectors.inl.h"
#include "../generic/engine.inl.h"
#include "../generic/amx_engine.inl.h"

bool vectors() {
  return avx512.supported() && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}

#if defined(FASTSIREN_TILES)
uint64_t enabled_states() {
  uint32_t low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low | uint64_t{high} << 32;
}

// Linux hands out the tile state on request only. Asking again is harmless; any failure means that there are no tiles.
bool tiles() {
  uint32_t a, b, c, d;
  if (!vectors() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const uint32_t tile = 1u << 24, int8 = 1u << 25;
  if (!(d & tile) || !(d & int8)) return false;
  const uint64_t state = uint64_t{3} << 17;
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;
  return (enabled_states() & state) == state && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
const Kernels<float> f32 = digit_kernels<OnUnit<Hardware>>();
#else
bool tiles() {
  return false;
}
const Kernels<float> f32 = digit_kernels<OnUnit<Emulated>>();
#endif
const Kernels<float> emulated_f32 = digit_kernels<OnUnit<Emulated>>();

}  // namespace
const Isa amx{"amx", tiles, &f32, &avx512_f64};
const Isa amx_emulated{"amx-emulated", vectors, &emulated_f32, &avx512_f64, false};
}  // namespace fastsiren

FASTSIREN_TARGET_END
#endif
