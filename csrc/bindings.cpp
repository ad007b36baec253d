// fastsiren._C: raw addresses and sizes in, nothing out but numbers. fastsiren/engine/cpp.py owns the tensors and
// checks them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cmath>
#include <exception>
#include <stdexcept>

#include "isa.h"
#include "pack.h"
#include "schedule.h"

namespace py = pybind11;
using namespace fastsiren;

namespace {

using Address = uintptr_t;  // of a contiguous array; 0 for none

template <class T>
T* at(Address a) {
  return reinterpret_cast<T*>(a);
}

struct NetArgs {
  std::vector<Address> weights, biases;
  std::vector<int64_t> widths;  // D, hidden widths, O
  std::vector<double> omegas;   // one per sine layer

  template <class T>
  Net<T> build() const {
    const size_t n = weights.size();
    if (n < 2 || biases.size() != n || widths.size() != n + 1 || omegas.size() + 1 != n)
      throw std::invalid_argument("weights, biases, widths and omegas do not describe one network");
    Net<T> net;
    for (size_t l = 0; l < n; l++)
      net.push_back(
          {at<const T>(weights[l]), at<const T>(biases[l]), widths[l], widths[l + 1], l + 1 < n ? omegas[l] : 1.0});
    return net;
  }
  // Tangents of a sine layer grow by omega; seeds divided by a power of two near it keep every channel near one,
  // exactly.
  double sigma() const {
    const double omega = std::fabs(omegas[0]);
    return std::isfinite(omega) && omega > 0 ? std::exp2(std::round(std::log2(omega))) : 1.0;
  }
};

struct LossArgs {
  int kind = 0;
  Address target = 0, weight = 0;
  double scale = 1;

  template <class T>
  Loss<T> build() const {
    return {static_cast<LossKind>(kind), at<const T>(target), at<const T>(weight), scale};
  }
};

// Gradients wanted by a backward pass; empty lists mean no parameter gradients.
struct GradArgs {
  Address x = 0, first = 0, second = 0;
  std::vector<Address> weights, biases;
};

bool signal_pending() {
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// Asked once: only a fork changes it, and whoever forks after this was asked is refused (refuse_after_fork). Not in a
// guarded static: the import may hand the interpreter lock to a thread that would then wait for the guard.
unsigned long main_thread() {
  static std::atomic<unsigned long> known{0};
  if (!known.load())
    known.store(py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>());
  return known.load();
}

// Python runs signal handlers on its main thread only; any other thread has nothing to look for, and must not wait for
// the interpreter lock while the interpreter shuts down.
Interrupted interruption() {
  return PyThread_get_thread_ident() == main_thread() ? Interrupted(signal_pending) : Interrupted();
}

// Not by a destructor: where the interpreter has shut down meanwhile, taking the lock again ends a thread by unwinding
// it, and that must not meet a destructor.
template <class Work>
void without_gil(Work&& work) {
  std::exception_ptr failure;
  PyThreadState* const state = PyEval_SaveThread();
  try {
    work();
  } catch (...) {
    failure = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (failure) std::rethrow_exception(failure);
}

void finish(const Schedule& schedule) {
  if (schedule.stop.load()) throw py::error_already_set();
}

// Which coefficients of the forms are ever used. A gradient of the forms needs all of them.
template <class T>
std::vector<Term> find_terms(const T* forms, int64_t rows, int64_t R, int64_t K, bool all) {
  std::vector<Term> terms;
  for (int32_t r = 0; r < R; r++)
    for (int32_t k = 0; k < K; k++)
      for (int32_t j = k; j < K; j++) {
        bool used = all;
        for (int64_t n = 0; n < rows && !used; n++) {
          const T* m = forms + (n * R + r) * K * K;
          used = m[k * K + j] != 0 || m[j * K + k] != 0;
        }
        if (used) terms.push_back({r, k, j});
      }
  return terms;
}

template <class Job, class Run>
void run_blocks(const Job& job, int threads, int64_t block, size_t bytes, SegmentTree* tree, Run&& kernel) {
  Schedule schedule((job.N + block - 1) / block, interruption(), tree);
  threads = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, schedule.blocks)));
  std::vector<std::unique_ptr<Block>> workspace;
  for (int i = 0; i < threads; i++) workspace.push_back(std::make_unique<Block>(bytes));
  without_gil(
      [&] { parallel(threads, [&](int id) { kernel(job, schedule, workspace[static_cast<size_t>(id)]->data()); }); });
  finish(schedule);
}

template <class T, class Job, class Size, class Run>
double run_backward(Job& job, const Net<T>& net, const GradArgs& grads, int threads, Size bytes, Run kernel) {
  GradientBuffers<T> buffers(net, active_kernels<T>().gradient_align);
  job.parameters = !grads.weights.empty();
  job.layout = buffers.layout();
  if (!job.parameters) job.layout.elements = 0;
  const int64_t segment = segment_points(job.N);
  SegmentTree tree((job.N + segment - 1) / segment, sizeof(T), job.layout.elements, job.layout.doubles);
  run_blocks(job, threads, segment, bytes(job), &tree, kernel);
  if (job.parameters) {
    std::vector<T*> w, b;
    for (Address a : grads.weights) w.push_back(at<T>(a));
    for (Address a : grads.biases) b.push_back(at<T>(a));
    buffers.store(tree.root(), w, b);
  }
  return tree.root().values ? tree.root().doubles[0] : 0.0;
}

// Points and seeds of one call. `count` and `second`: forms of a jet, combinations of a sandwich.
struct PassArgs {
  int64_t N, K, count;
  Address x, V, second;
  bool V_rows, second_rows;

  template <template <class> class Job, class T>
  Job<T> start(const NetArgs& net, const Packed<T>& packed) const {
    Job<T> job{};
    job.net = packed;
    job.points = {at<const T>(x), nullptr};
    job.N = N, job.K = K;
    job.V = at<const T>(V), job.V_rows = V_rows;
    job.sigma = net.sigma();
    return job;
  }

  template <class T>
  std::vector<Term> terms(bool all) const {
    return find_terms(at<const T>(second), second_rows ? N : 1, count, K, all);
  }
  template <class T>
  JetJob<T> jet(const NetArgs& net, const Packed<T>& packed, const std::vector<Term>& terms) const {
    JetJob<T> job = start<JetJob>(net, packed);
    job.R = count, job.M = at<const T>(second), job.M_rows = second_rows;
    job.terms = terms.data(), job.n_terms = static_cast<int64_t>(terms.size());
    return job;
  }
  template <class T>
  SandwichJob<T> sandwich(const NetArgs& net, const Packed<T>& packed) const {
    SandwichJob<T> job = start<SandwichJob>(net, packed);
    job.C = count, job.E = at<const T>(second), job.E_rows = second_rows;
    return job;
  }
};

template <class T>
void jet_fwd(const NetArgs& args, const PassArgs& pass, Address y, Address first, Address second, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  const Net<T> net = args.build<T>();
  const PackedNet<T> packed(net, kernels, false, threads);
  const auto terms = pass.terms<T>(false);
  JetJob<T> job = pass.jet(args, packed.get(), terms);
  job.y = at<T>(y), job.first = at<T>(first), job.second = at<T>(second);
  run_blocks(job, threads, BLOCK_POINTS, kernels.jet_fwd_bytes(job), nullptr, kernels.jet_fwd);
}

template <class T>
double jet_bwd(const NetArgs& args, const PassArgs& pass, Address y_bar, Address first_bar, Address second_bar,
               const LossArgs& loss, const GradArgs& grads, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  const Net<T> net = args.build<T>();
  const PackedNet<T> packed(net, kernels, true, threads);
  const auto terms = pass.terms<T>(grads.second != 0);
  JetJob<T> job = pass.jet(args, packed.get(), terms);
  job.y_bar = at<const T>(y_bar), job.first_bar = at<const T>(first_bar), job.second_bar = at<const T>(second_bar);
  job.loss = loss.build<T>();
  job.x_bar = at<T>(grads.x), job.V_bar = at<T>(grads.first), job.M_bar = at<T>(grads.second);
  return run_backward<T>(job, net, grads, threads, kernels.jet_bwd_bytes, kernels.jet_bwd);
}

template <class T>
void sandwich_fwd(const NetArgs& args, const PassArgs& pass, Address y, Address jacobian, Address hessian,
                  int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  const Net<T> net = args.build<T>();
  const PackedNet<T> packed(net, kernels, true, threads);
  SandwichJob<T> job = pass.sandwich(args, packed.get());
  job.y = at<T>(y), job.jacobian = at<T>(jacobian), job.hessian = at<T>(hessian);
  run_blocks(job, threads, BLOCK_POINTS, kernels.sandwich_fwd_bytes(job), nullptr, kernels.sandwich_fwd);
}

template <class T>
double sandwich_bwd(const NetArgs& args, const PassArgs& pass, Address y_bar, Address jacobian_bar, Address hessian_bar,
                    const LossArgs& loss, const GradArgs& grads, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  const Net<T> net = args.build<T>();
  const PackedNet<T> packed(net, kernels, true, threads);
  SandwichJob<T> job = pass.sandwich(args, packed.get());
  job.y_bar = at<const T>(y_bar), job.jacobian_bar = at<const T>(jacobian_bar),
  job.hessian_bar = at<const T>(hessian_bar);
  job.loss = loss.build<T>();
  job.x_bar = at<T>(grads.x), job.V_bar = at<T>(grads.first), job.E_bar = at<T>(grads.second);
  return run_backward<T>(job, net, grads, threads, kernels.sandwich_bwd_bytes, kernels.sandwich_bwd);
}

template <class T>
void grid_fwd(const NetArgs& args, const std::vector<double>& origin, const std::vector<double>& step,
              const std::vector<int64_t>& start, const std::vector<int64_t>& shape, Address out, int pixel_type,
              double gain, double offset, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  const Net<T> net = args.build<T>();
  const size_t D = static_cast<size_t>(args.widths[0]);
  if (origin.size() != D || step.size() != D || start.size() != D || shape.size() != D)
    throw std::invalid_argument("origin, step, start and shape need one entry per input");
  if (D > MAX_AXES)
    throw std::invalid_argument("a grid has at most " + std::to_string(MAX_AXES) + " axes, got " + std::to_string(D));
  const PackedNet<T> packed(net, kernels, false, threads);
  Grid grid{};
  int64_t N = 1;
  for (size_t a = 0; a < D; a++) {
    grid.origin[a] = origin[a], grid.step[a] = step[a], grid.start[a] = start[a], grid.shape[a] = shape[a];
    N *= shape[a];
  }
  const PassArgs points{N, 0, 0, 0, 0, 0, false, false};
  JetJob<T> job = points.start<JetJob>(args, packed.get());
  job.points.grid = &grid;
  job.pixels = {static_cast<PixelType>(pixel_type), at<void>(out), gain, offset};
  run_blocks(job, threads, BLOCK_POINTS, kernels.jet_fwd_bytes(job), nullptr, kernels.jet_fwd);
}

template <class T>
void sinpi(Address u, Address sine, Address cosine, int64_t n) {
  active_kernels<T>().sinpi(at<const T>(u), at<T>(sine), at<T>(cosine), n);
}

template <class T>
void define(py::module_& m, const std::string& suffix) {
  m.def(("jet_fwd" + suffix).c_str(), jet_fwd<T>);
  m.def(("jet_bwd" + suffix).c_str(), jet_bwd<T>);
  m.def(("sandwich_fwd" + suffix).c_str(), sandwich_fwd<T>);
  m.def(("sandwich_bwd" + suffix).c_str(), sandwich_bwd<T>);
  m.def(("grid_fwd" + suffix).c_str(), grid_fwd<T>);
  m.def(("sinpi" + suffix).c_str(), sinpi<T>);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  py::class_<NetArgs>(m, "NetArgs")
      .def(py::init<std::vector<Address>, std::vector<Address>, std::vector<int64_t>, std::vector<double>>());
  py::class_<LossArgs>(m, "LossArgs").def(py::init<int, Address, Address, double>());
  py::class_<GradArgs>(m, "GradArgs")
      .def(py::init<Address, Address, Address, std::vector<Address>, std::vector<Address>>());
  py::class_<PassArgs>(m, "PassArgs").def(py::init<int64_t, int64_t, int64_t, Address, Address, Address, bool, bool>());
  define<float>(m, "_f32");
  define<double>(m, "_f64");
  m.def("isa_available", isa_available);
  m.def("isa_active", [] { return std::string(isa_active().name); });
  m.def("isa_select", isa_select);
}
