// What stands between the bindings and the instruction-set units: plain structs and pointers, no STL, no torch, no
// Python. Letters: N points, D inputs, O outputs, K directions, R quadratic forms, C output combinations, l a layer.
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastsiren {

constexpr int64_t MAX_AXES = 16;
// Segments are summed on their own and merged along a fixed tree, so sums never depend on threads. A common multiple of
// all tiles.
constexpr int64_t SEGMENT_POINTS = 384;
// Merging has its cost, so only a small batch is cut that fine, which keeps several threads busy with it.
constexpr int64_t segment_points(int64_t N) {
  return N <= 24 * SEGMENT_POINTS ? SEGMENT_POINTS : 3 * SEGMENT_POINTS;
}

// One affine map as nn.Linear holds it: W [out, in] row-major, b [out]. omega belongs to the sine that follows (1 for
// the output layer); tangents of parameters have it over sigma.
template <class T>
struct Affine {
  const T* W;
  const T* b;
  int64_t in, out;
  double omega;
};

// Parameters in the form the kernels read. Phases are counted in half turns: u = omega / pi (W h + b), h = sin(pi u).
template <class T>
struct Packed {
  int64_t sines;  // number of sine layers
  int64_t D, O;
  const int64_t* width;  // [sines]
  const T* first_hi;     // [H0, D]: omega_0 / pi W_0, rounded
  const T* first_lo;     // [H0, D]: what the rounding lost
  const T* const* bias;  // per sine layer [H]: omega / pi b; layer 0 reduced mod 2
  const T* const* up;    // per sine layer >= 1: panels [ceil(H / MR)][in][MR] of omega / pi W
  const T* const* down;  // per sine layer >= 1: panels [ceil(in / MR)][H][MR] of its transpose; null for forward passes
  const T* out_W;        // panels of the output layer, [ceil(O / MO)][H][MO]
  const T* out_rows;     // [O, H], the same by rows
  const T* out_b;        // [O]
  int64_t max_width;
  const void* extra;  // what the instruction set packed for itself (Kernels::pack_extra), or null
};

// Coordinates made from indices: axis a, index i has origin[a] + step[a] * (start[a] + i), in double, then rounded.
// First axis slowest.
struct Grid {
  double origin[MAX_AXES], step[MAX_AXES];
  int64_t start[MAX_AXES], shape[MAX_AXES];
};

template <class T>
struct Points {
  const T* x;        // [N, D] contiguous, or null
  const Grid* grid;  // used when x is null
};

// A coefficient of a symmetric quadratic form: sum over terms of coef * p_k * p_j, k <= j (off the diagonal the two
// entries added).
struct Term {
  int32_t form, k, j;
};

enum class LossKind : int32_t { none, value, gradient, laplacian, eikonal };

template <class T>
struct Loss {
  LossKind kind;
  const T* target;  // [N, O] or [N, O, D]; null for eikonal
  const T* weight;  // [N] or null
  double scale;     // 1, or 1 / (N O)
};

enum class PixelType : int32_t { none, f32, f64, u8, u16 };

// Where dense decoding writes: gain * y + offset, unsigned integers rounded half to even from [0, 1], NaN to 0.
struct Pixels {
  PixelType type;
  void* out;  // [N, O]
  double gain, offset;
};

// Offsets, in elements of T, of one segment's sums of parameter gradients (in half turns, before the factor omega /
// pi).
struct GradientLayout {
  const int64_t* weight;  // per affine map
  const int64_t* stride;  // row stride of each weight block
  const int64_t* bias;    // per sine layer
  int64_t elements;
  int64_t doubles;  // 1 + O: loss, output bias
  bool weights;     // false: sums of the biases alone
};

// Engine T (kernels/README.md (1) to (12)): value, K tangents, R second-order channels, and their adjoint.
template <class T>
struct JetJob {
  Packed<T> net;
  Points<T> points;
  int64_t N, K, R;
  const T* V;  // [K, D], or [N, K, D] when V_rows
  bool V_rows;
  const T* M;  // [R, K, K], or [N, R, K, K] when M_rows
  bool M_rows;
  const Term* terms;
  int64_t n_terms;
  double sigma;
  T *y, *first, *second;                    // [N, O], [N, K, O], [N, R, O]
  Pixels pixels;                            // instead of y
  const T *y_bar, *first_bar, *second_bar;  // cotangents; null means zero
  Loss<T> loss;                             // instead of cotangents
  T *x_bar, *V_bar, *M_bar;                 // [N, D], [N, K, D], [N, R, K, K]; null when not wanted
  bool parameters;                          // parameter gradients wanted
  GradientLayout layout;
  T* tape;  // written by a forward pass and read by its backward pass; null: that evaluates again
  // Tangents of the parameters over sigma, for value_bwdbwd; of the biases alone where first_hi is null.
  const Packed<T>* dots;
};

// Engines A (K = 0) and TxA (kernels/README.md (13) to (27)): value, Jacobian of C combinations of outputs, and their
// Hessians over K directions.
template <class T>
struct SandwichJob {
  Packed<T> net;
  Points<T> points;
  int64_t N, K, C;
  const T* V;
  bool V_rows;
  const T* E;  // [C, O], or [N, C, O] when E_rows
  bool E_rows;
  double sigma;
  T *y, *jacobian, *hessian;                    // [N, O], [N, C, D], [N, C, K, K]
  const T *y_bar, *jacobian_bar, *hessian_bar;  // null means zero
  Loss<T> loss;
  T *x_bar, *V_bar, *E_bar;
  bool parameters;
  GradientLayout layout;
};

// Hands out blocks of work; defined in schedule.cpp, so that no template of it is compiled for one instruction set.
struct Schedule;
int64_t claim(Schedule& schedule);  // next block, -1 when none is left or the call was interrupted
void poll(Schedule& schedule);      // lets the calling thread look for a pending Ctrl-C
struct SegmentSums {
  void* values;     // [layout.elements] of T, zeroed
  double* doubles;  // [layout.doubles], zeroed
};
SegmentSums segment_begin(Schedule& schedule);
void segment_end(Schedule& schedule, int64_t segment, const SegmentSums& sums);

// Points per block of a forward pass: every instruction set's tile divides it.
constexpr int64_t BLOCK_POINTS = 384;

template <class T>
struct Kernels {
  int64_t panel_rows;  // MR of the packed panels
  // Share `id` of `shares` of the panels of a hidden matrix, and of its transpose unless `down` is null.
  void (*pack)(const Affine<T>& map, T* up, T* down, int64_t id, int64_t shares);
  int64_t (*output_rows)(int64_t O);          // MO of the output panels
  int64_t gradient_align;                     // row stride of weight gradients is a multiple of this
  size_t (*jet_fwd_bytes)(const JetJob<T>&);  // workspace of one thread
  void (*jet_fwd)(const JetJob<T>&, Schedule&, void* workspace);
  size_t (*jet_bwd_bytes)(const JetJob<T>&);
  void (*jet_bwd)(const JetJob<T>&, Schedule&, void* workspace);
  // Numbers on the tape of a jet over N points, 0 where the instruction set has none.
  int64_t (*tape_size)(const int64_t* width, int64_t sines, int64_t channels, int64_t N);
  size_t (*value_bwdbwd_bytes)(const JetJob<T>&);
  void (*value_bwdbwd)(const JetJob<T>&, Schedule&, void* workspace);
  size_t (*sandwich_fwd_bytes)(const SandwichJob<T>&);
  void (*sandwich_fwd)(const SandwichJob<T>&, Schedule&, void* workspace);
  size_t (*sandwich_bwd_bytes)(const SandwichJob<T>&);
  void (*sandwich_bwd)(const SandwichJob<T>&, Schedule&, void* workspace);
  void (*sinpi)(const T* u, T* sine, T* cosine, int64_t n);  // the sine of every kernel, exposed for its test
  // Weights in a form of the instruction set's own: fills `out`, thread `id` of `threads` its part, and returns the
  // bytes needed; with a null `out` it only counts.
  size_t (*pack_extra)(const Affine<T>* maps, int64_t sines, bool down, void* out, int64_t id,
                       int64_t threads) = nullptr;
};

struct Isa {
  const char* name;
  bool (*supported)();
  const Kernels<float>* f32;
  const Kernels<double>* f64;
  bool automatic = true;  // false: only by name
};

}  // namespace fastsiren
