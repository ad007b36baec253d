// The C++ engine without Python: every instruction set of this machine against the portable one in double precision.
// For cross-compiled builds under an emulator, and for sanitizers:
//   aarch64-linux-gnu-g++ -std=c++17 -O2 -static -pthread -Icsrc tests/engine_check.cpp csrc/{isa,pack,schedule}.cpp
//   csrc/isa/*.cpp -o check qemu-aarch64 ./check
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "isa.h"
#include "pack.h"
#include "schedule.h"

using namespace fastsiren;

namespace {

constexpr int64_t N = 1300, D = 3, K = 3, O = 2;
const std::vector<int64_t> WIDTHS = {D, 33, 64, 20, O};

struct Case {
  std::vector<std::vector<double>> W, b;
  std::vector<double> x, V, M, y_bar, T_bar, S_bar;
};

Case make() {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> unit(-1, 1);
  auto fill = [&](int64_t n, double bound) {
    std::vector<double> v(static_cast<size_t>(n));
    // Rounded to float, so that both precisions see the same numbers.
    for (double& e : v) e = static_cast<float>(unit(random) * bound);
    return v;
  };
  Case c;
  for (size_t l = 0; l + 1 < WIDTHS.size(); l++) {
    const double fan = static_cast<double>(WIDTHS[l]);
    c.W.push_back(fill(WIDTHS[l] * WIDTHS[l + 1], l ? std::sqrt(6 / fan) / 30 : 1 / fan));
    c.b.push_back(fill(WIDTHS[l + 1], 1 / std::sqrt(fan)));
  }
  c.x = fill(N * D, 1), c.V = fill(K * D, 1), c.M = fill(K * K, 1);
  for (int i = 0; i < K; i++)
    for (int j = 0; j < i; j++) c.M[static_cast<size_t>(i * K + j)] = c.M[static_cast<size_t>(j * K + i)];
  c.y_bar = fill(N * O, 1), c.T_bar = fill(N * K * O, 1.0 / 32), c.S_bar = fill(N * O, 1.0 / 1024);
  return c;
}

template <class T>
std::vector<T> cast(const std::vector<double>& v) {
  return std::vector<T>(v.begin(), v.end());
}

// Outputs, x_bar and all parameter gradients of one jet, as doubles.
template <class T>
std::vector<std::vector<double>> run(const Case& c, int threads) {
  std::vector<std::vector<T>> W, b, W_bar, b_bar;
  Net<T> net;
  for (size_t l = 0; l < c.W.size(); l++) {
    W.push_back(cast<T>(c.W[l])), b.push_back(cast<T>(c.b[l]));
    W_bar.emplace_back(W[l].size()), b_bar.emplace_back(b[l].size());
  }
  for (size_t l = 0; l < W.size(); l++)
    net.push_back({W[l].data(), b[l].data(), WIDTHS[l], WIDTHS[l + 1], l + 1 < W.size() ? 30.0 : 1.0});
  const auto& kernels = active_kernels<T>();
  const PackedNet<T> packed(net, kernels, true, threads);
  const auto x = cast<T>(c.x), V = cast<T>(c.V), M = cast<T>(c.M);
  const auto y_bar = cast<T>(c.y_bar), T_bar = cast<T>(c.T_bar), S_bar = cast<T>(c.S_bar);
  std::vector<T> y(N * O), first(N * K * O), second(N * O), x_bar(N * D);
  std::vector<Term> terms;
  for (int32_t k = 0; k < K; k++)
    for (int32_t j = k; j < K; j++) terms.push_back({0, k, j});
  JetJob<T> job{};
  job.net = packed.get();
  job.points = {x.data(), nullptr};
  job.N = N, job.K = K, job.R = 1;
  job.V = V.data(), job.M = M.data(), job.terms = terms.data(), job.n_terms = static_cast<int64_t>(terms.size()),
  job.sigma = 32;
  job.y = y.data(), job.first = first.data(), job.second = second.data();
  auto sweep = [&](size_t bytes, auto kernel, int64_t block, SegmentTree* tree) {
    Schedule schedule((N + block - 1) / block, nullptr, tree);
    std::vector<std::unique_ptr<Block>> work;
    for (int i = 0; i < threads; i++) work.push_back(std::make_unique<Block>(bytes));
    parallel(threads, [&](int id) { kernel(job, schedule, work[static_cast<size_t>(id)]->data()); });
  };
  sweep(kernels.jet_fwd_bytes(job), kernels.jet_fwd, BLOCK_POINTS, nullptr);
  job.y_bar = y_bar.data(), job.first_bar = T_bar.data(), job.second_bar = S_bar.data(), job.x_bar = x_bar.data();
  GradientBuffers<T> buffers(net, kernels.gradient_align);
  job.parameters = true, job.layout = buffers.layout();
  const int64_t segment = segment_points(N);
  SegmentTree tree((N + segment - 1) / segment, sizeof(T), job.layout.elements, job.layout.doubles);
  sweep(kernels.jet_bwd_bytes(job), kernels.jet_bwd, segment, &tree);
  std::vector<T*> w, v;
  for (auto& g : W_bar) w.push_back(g.data());
  for (auto& g : b_bar) v.push_back(g.data());
  buffers.store(tree.root(), w, v);
  std::vector<std::vector<double>> all;
  for (const auto* r : {&y, &first, &second, &x_bar}) all.emplace_back(r->begin(), r->end());
  for (const auto& g : W_bar) all.emplace_back(g.begin(), g.end());
  for (const auto& g : b_bar) all.emplace_back(g.begin(), g.end());
  return all;
}

double worst(const std::vector<std::vector<double>>& a, const std::vector<std::vector<double>>& reference) {
  double most = 0;
  for (size_t i = 0; i < a.size(); i++) {
    double difference = 0, size = 0;
    for (size_t j = 0; j < a[i].size(); j++) {
      difference += (a[i][j] - reference[i][j]) * (a[i][j] - reference[i][j]);
      size += reference[i][j] * reference[i][j];
    }
    const double error = std::sqrt(difference / size);
    if (!(error <= most)) most = error;
  }
  return most;
}

}  // namespace

int main() {
  const Case c = make();
  isa_select("scalar");
  const auto reference = run<double>(c, 1);
  bool good = true;
  for (const std::string& name : isa_available()) {
    isa_select(name);
    const auto f32 = run<float>(c, 2), f64 = run<double>(c, 2);
    const double e32 = worst(f32, reference), e64 = worst(f64, reference);
    const bool same = f32 == run<float>(c, 1) && f64 == run<double>(c, 3);
    std::printf("%-14s fp32 %.1e  fp64 %.1e  same bits for any thread count: %s\n", name.c_str(), e32, e64,
                same ? "yes" : "NO");
    good = good && e32 <= 5e-6 && e64 <= 1e-12 && same;
  }
  return good ? 0 : 1;
}
