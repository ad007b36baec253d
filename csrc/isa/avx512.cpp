// AVX-512.
#include <cmath>
#include <cstring>

#include "../engine.h"
#include "../generic/target.h"
#if defined(__x86_64__)
#include <immintrin.h>

#if !defined(__clang__)
// The headers of GCC 12 leave a vector undefined on purpose and then warn about it.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

FASTSIREN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,fma,avx2")

namespace fastsiren {
namespace {

#include "avx512_vectors.inl.h"
#include "../generic/engine.inl.h"

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

}  // namespace
// amx.cpp hands on to these what it does not cover.
extern const Kernels<float> avx512_f32;
extern const Kernels<double> avx512_f64;
extern const Isa avx512;
const Kernels<float> avx512_f32 = kernels<Float>();
const Kernels<double> avx512_f64 = kernels<Double>();
const Isa avx512{"avx512", supported, &avx512_f32, &avx512_f64};
}  // namespace fastsiren

FASTSIREN_TARGET_END
#endif
