// fastsiren._C: raw addresses and sizes in, nothing out but numbers. fastsiren/engine/cpp.py owns the tensors and
// checks them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cmath>
#include <exception>
#include <stdexcept>

#include "isa.h"
#include "pass.h"

namespace py = pybind11;
using namespace fastsiren;

namespace {

using Address = uintptr_t;  // of a contiguous array; 0 for none

template <class T>
T* at(Address a) {
  return reinterpret_cast<T*>(a);
}

// Parameters of `networks` networks; see Stack.
struct NetArgs {
  int64_t networks;
  std::vector<Address> weights, biases;
  std::vector<int64_t> weight_steps, bias_steps;
  std::vector<int64_t> widths;  // D, hidden widths, O
  std::vector<double> omegas;   // one per sine layer

  template <class T>
  Stack<T> build() const {
    const size_t n = weights.size();
    if (n < 2 || biases.size() != n || weight_steps.size() != n || bias_steps.size() != n || widths.size() != n + 1 ||
        omegas.size() + 1 != n)
      throw std::invalid_argument("weights, biases, steps, widths and omegas do not describe one network");
    Stack<T> nets{{}, weight_steps, bias_steps};
    for (size_t l = 0; l < n; l++)
      nets.first.push_back(
          {at<const T>(weights[l]), at<const T>(biases[l]), widths[l], widths[l + 1], l + 1 < n ? omegas[l] : 1.0});
    return nets;
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

// Losses and gradients wanted of a backward pass; empty lists mean no parameter gradients, or none of the weights.
struct GradArgs {
  Address losses = 0, x = 0, first = 0, second = 0;
  std::vector<Address> weights, biases;

  template <class T>
  SumTargets<T> sums() const {
    SumTargets<T> targets{at<T>(losses), {}, {}};
    for (Address a : weights) targets.weights.push_back(at<T>(a));
    for (Address a : biases) targets.biases.push_back(at<T>(a));
    return targets;
  }
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

// Points and seeds of one call, N points for each network. `count` and `second`: forms of a jet, combinations of a
// sandwich.
struct PassArgs {
  int64_t N, K, count;
  Address x, V, second;
  bool V_rows, second_rows, points_shared;
  Address tape = 0;  // of a jet, jet_tape numbers

  template <class Job, class T>
  Job start(const NetArgs& net) const {
    Job job{};
    job.net.D = net.widths.front(), job.net.O = net.widths.back();
    job.points = {at<const T>(x), nullptr};
    job.N = N, job.K = K;
    job.V = at<const T>(V), job.V_rows = V_rows;
    job.sigma = net.sigma();
    return job;
  }
  template <class T>
  JetJob<T> jet(const NetArgs& net) const {
    JetJob<T> job = start<JetJob<T>, T>(net);
    job.R = count, job.M = at<const T>(second), job.M_rows = second_rows;
    job.tape = at<T>(tape);
    return job;
  }
  template <class T>
  SandwichJob<T> sandwich(const NetArgs& net) const {
    SandwichJob<T> job = start<SandwichJob<T>, T>(net);
    job.C = count, job.E = at<const T>(second), job.E_rows = second_rows;
    return job;
  }
};

template <class T, class Job>
void run(const Pass<T, Job>& pass, int threads) {
  Watch watch(interruption());
  without_gil([&] { run_pass(pass, threads, watch); });
  if (watch.stop.load()) throw py::error_already_set();
}

// How many numbers the tape of a jet has that a forward pass may leave for its backward pass.
template <class T>
int64_t jet_tape(const NetArgs& net, const PassArgs& args) {
  const std::vector<int64_t> hidden(net.widths.begin() + 1, net.widths.end() - 1);
  const int64_t sines = static_cast<int64_t>(hidden.size());
  return net.networks * active_kernels<T>().tape_size(hidden.data(), sines, 1 + args.K + args.count, args.N);
}

template <class T>
void jet_fwd(const NetArgs& net, const PassArgs& args, Address y, Address first, Address second, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  JetJob<T> job = args.jet<T>(net);
  job.y = at<T>(y), job.first = at<T>(first), job.second = at<T>(second);
  run(Pass<T, JetJob<T>>{kernels, net.build<T>(), net.networks, job, args.points_shared, false, kernels.jet_fwd_bytes,
                         kernels.jet_fwd, nullptr},
      threads);
}

template <class T>
void jet_bwd(const NetArgs& net, const PassArgs& args, Address y_bar, Address first_bar, Address second_bar,
             const LossArgs& loss, const GradArgs& grads, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  JetJob<T> job = args.jet<T>(net);
  job.y_bar = at<const T>(y_bar), job.first_bar = at<const T>(first_bar), job.second_bar = at<const T>(second_bar);
  job.loss = loss.build<T>();
  job.x_bar = at<T>(grads.x), job.V_bar = at<T>(grads.first), job.M_bar = at<T>(grads.second);
  const SumTargets<T> sums = grads.sums<T>();
  run(Pass<T, JetJob<T>>{kernels, net.build<T>(), net.networks, job, args.points_shared, true, kernels.jet_bwd_bytes,
                         kernels.jet_bwd, &sums},
      threads);
}

// Second derivatives of the value: y_dot along the tangents V of x and `dots` of the parameters, of its product with
// y_bar the gradients.
template <class T>
void value_bwdbwd(const NetArgs& net, const PassArgs& args, const NetArgs& dots, Address y_bar, Address y_dot,
                  const GradArgs& grads, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  JetJob<T> job = args.jet<T>(net);
  if (job.K != 1 || job.R != 0) throw std::invalid_argument("value_bwdbwd takes one direction and no form");
  job.first = at<T>(y_dot), job.first_bar = at<const T>(y_bar), job.x_bar = at<T>(grads.x);
  const SumTargets<T> sums = grads.sums<T>();
  Stack<T> tangents = dots.build<T>();
  for (Affine<T>& map : tangents.first) map.omega /= job.sigma;
  run(Pass<T, JetJob<T>>{kernels, net.build<T>(), net.networks, job, args.points_shared, true,
                         kernels.value_bwdbwd_bytes, kernels.value_bwdbwd, &sums, &tangents},
      threads);
}

template <class T>
void sandwich_fwd(const NetArgs& net, const PassArgs& args, Address y, Address jacobian, Address hessian, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  SandwichJob<T> job = args.sandwich<T>(net);
  job.y = at<T>(y), job.jacobian = at<T>(jacobian), job.hessian = at<T>(hessian);
  run(Pass<T, SandwichJob<T>>{kernels, net.build<T>(), net.networks, job, args.points_shared, true,
                              kernels.sandwich_fwd_bytes, kernels.sandwich_fwd, nullptr},
      threads);
}

template <class T>
void sandwich_bwd(const NetArgs& net, const PassArgs& args, Address y_bar, Address jacobian_bar, Address hessian_bar,
                  const LossArgs& loss, const GradArgs& grads, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  SandwichJob<T> job = args.sandwich<T>(net);
  job.y_bar = at<const T>(y_bar), job.jacobian_bar = at<const T>(jacobian_bar),
  job.hessian_bar = at<const T>(hessian_bar);
  job.loss = loss.build<T>();
  job.x_bar = at<T>(grads.x), job.V_bar = at<T>(grads.first), job.E_bar = at<T>(grads.second);
  const SumTargets<T> sums = grads.sums<T>();
  run(Pass<T, SandwichJob<T>>{kernels, net.build<T>(), net.networks, job, args.points_shared, true,
                              kernels.sandwich_bwd_bytes, kernels.sandwich_bwd, &sums},
      threads);
}

template <class T>
void grid_fwd(const NetArgs& net, const std::vector<double>& origin, const std::vector<double>& step,
              const std::vector<int64_t>& start, const std::vector<int64_t>& shape, Address out, int pixel_type,
              double gain, double offset, int threads) {
  refuse_after_fork();
  const auto& kernels = active_kernels<T>();
  const size_t D = static_cast<size_t>(net.widths[0]);
  if (origin.size() != D || step.size() != D || start.size() != D || shape.size() != D)
    throw std::invalid_argument("origin, step, start and shape need one entry per input");
  if (D > MAX_AXES)
    throw std::invalid_argument("a grid has at most " + std::to_string(MAX_AXES) + " axes, got " + std::to_string(D));
  Grid grid{};
  int64_t N = 1;
  for (size_t a = 0; a < D; a++) {
    grid.origin[a] = origin[a], grid.step[a] = step[a], grid.start[a] = start[a], grid.shape[a] = shape[a];
    N *= shape[a];
  }
  const PassArgs points{N, 0, 0, 0, 0, 0, false, false, true};
  JetJob<T> job = points.jet<T>(net);
  job.points.grid = &grid;
  job.pixels = {static_cast<PixelType>(pixel_type), at<void>(out), gain, offset};
  run(Pass<T, JetJob<T>>{kernels, net.build<T>(), net.networks, job, true, false, kernels.jet_fwd_bytes,
                         kernels.jet_fwd, nullptr},
      threads);
}

// Memory of a tape, as a buffer; it goes back to its pool with the last tensor that stands in it.
struct TapeMemory {
  explicit TapeMemory(size_t size) : bytes(size), block(size, tapes()) {}
  size_t bytes;
  Block block;
};

template <class T>
void sinpi(Address u, Address sine, Address cosine, int64_t n) {
  active_kernels<T>().sinpi(at<const T>(u), at<T>(sine), at<T>(cosine), n);
}

template <class T>
void define(py::module_& m, const std::string& suffix) {
  m.def(("jet_tape" + suffix).c_str(), jet_tape<T>);
  m.def(("jet_fwd" + suffix).c_str(), jet_fwd<T>);
  m.def(("jet_bwd" + suffix).c_str(), jet_bwd<T>);
  m.def(("value_bwdbwd" + suffix).c_str(), value_bwdbwd<T>);
  m.def(("sandwich_fwd" + suffix).c_str(), sandwich_fwd<T>);
  m.def(("sandwich_bwd" + suffix).c_str(), sandwich_bwd<T>);
  m.def(("grid_fwd" + suffix).c_str(), grid_fwd<T>);
  m.def(("sinpi" + suffix).c_str(), sinpi<T>);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  py::class_<NetArgs>(m, "NetArgs")
      .def(py::init<int64_t, std::vector<Address>, std::vector<Address>, std::vector<int64_t>, std::vector<int64_t>,
                    std::vector<int64_t>, std::vector<double>>());
  py::class_<LossArgs>(m, "LossArgs").def(py::init<int, Address, Address, double>());
  py::class_<GradArgs>(m, "GradArgs")
      .def(py::init<Address, Address, Address, Address, std::vector<Address>, std::vector<Address>>());
  py::class_<PassArgs>(m, "PassArgs")
      .def(py::init<int64_t, int64_t, int64_t, Address, Address, Address, bool, bool, bool>())
      .def_readwrite("tape", &PassArgs::tape);
  py::class_<TapeMemory>(m, "TapeMemory", py::buffer_protocol()).def(py::init<size_t>()).def_buffer([](TapeMemory& t) {
    return py::buffer_info(reinterpret_cast<uint8_t*>(t.block.data()), static_cast<py::ssize_t>(t.bytes));
  });
  define<float>(m, "_f32");
  define<double>(m, "_f64");
  m.def("isa_available", isa_available);
  m.def("isa_active", [] { return std::string(isa_active().name); });
  m.def("isa_select", isa_select);
}
