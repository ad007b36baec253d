// Macros of the generic kernels. Included once by every instruction-set unit, inside its target region and anonymous
// namespace.
#define INLINE inline __attribute__((always_inline))
// The inner products keep all registers for themselves.
#define NOINLINE __attribute__((noinline))
#define RESTRICT __restrict__
#define FASTSIREN_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define UNROLL(n) FASTSIREN_PRAGMA(clang loop unroll(full))
#else
#define UNROLL(n) FASTSIREN_PRAGMA(GCC unroll n)
#endif

constexpr double PI = 3.14159265358979323846;
constexpr double PI2 = PI * PI;
