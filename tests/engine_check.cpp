// The C++ engine without Python: every instruction set of this machine against the portable one in double precision.
// For cross-compiled builds under an emulator, and for sanitizers:
//   aarch64-linux-gnu-g++ -std=c++17 -O2 -static -pthread -Icsrc tests/engine_check.cpp csrc/isa/*.cpp
//   csrc/{isa,networks,pack,schedule}.cpp -o check && qemu-aarch64 ./check
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "isa.h"
#include "pass.h"

using namespace fastsiren;

namespace {

// Points of each network.
constexpr int64_t G = 3, N = 1300, D = 3, K = 3, O = 2;
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
    c.W.push_back(fill(G * WIDTHS[l] * WIDTHS[l + 1], l ? std::sqrt(6 / fan) / 30 : 1 / fan));
    c.b.push_back(fill(G * WIDTHS[l + 1], 1 / std::sqrt(fan)));
  }
  c.x = fill(G * N * D, 1), c.V = fill(K * D, 1), c.M = fill(K * K, 1);
  for (int i = 0; i < K; i++)
    for (int j = 0; j < i; j++) c.M[static_cast<size_t>(i * K + j)] = c.M[static_cast<size_t>(j * K + i)];
  c.y_bar = fill(G * N * O, 1), c.T_bar = fill(G * N * K * O, 1.0 / 32), c.S_bar = fill(G * N * O, 1.0 / 1024);
  return c;
}

template <class T>
std::vector<T> cast(const std::vector<double>& v) {
  return std::vector<T>(v.begin(), v.end());
}

// Outputs, x_bar and all parameter gradients of one jet of G networks, as doubles; through a tape where there is one.
template <class T>
std::vector<std::vector<double>> run(const Case& c, int threads, bool with_tape = false) {
  std::vector<std::vector<T>> W, b, W_bar, b_bar;
  Stack<T> nets;
  SumTargets<T> sums{};
  for (size_t l = 0; l < c.W.size(); l++) {
    W.push_back(cast<T>(c.W[l])), b.push_back(cast<T>(c.b[l]));
    W_bar.emplace_back(W[l].size()), b_bar.emplace_back(b[l].size());
  }
  for (size_t l = 0; l < W.size(); l++) {
    nets.first.push_back({W[l].data(), b[l].data(), WIDTHS[l], WIDTHS[l + 1], l + 1 < W.size() ? 30.0 : 1.0});
    nets.weight_steps.push_back(WIDTHS[l] * WIDTHS[l + 1]), nets.bias_steps.push_back(WIDTHS[l + 1]);
    sums.weights.push_back(W_bar[l].data()), sums.biases.push_back(b_bar[l].data());
  }
  const auto x = cast<T>(c.x), V = cast<T>(c.V), M = cast<T>(c.M);
  const auto y_bar = cast<T>(c.y_bar), T_bar = cast<T>(c.T_bar), S_bar = cast<T>(c.S_bar);
  std::vector<T> y(G * N * O), first(G * N * K * O), second(G * N * O), x_bar(G * N * D);
  JetJob<T> job{};
  job.points = {x.data(), nullptr};
  job.N = N, job.K = K, job.R = 1;
  job.V = V.data(), job.M = M.data(), job.sigma = 32;
  job.y = y.data(), job.first = first.data(), job.second = second.data();
  const auto& kernels = active_kernels<T>();
  const int64_t numbers = kernels.tape_size(&WIDTHS[1], static_cast<int64_t>(WIDTHS.size()) - 2, 1 + K + job.R, N);
  std::vector<T> tape(with_tape ? G * numbers : 0);
  job.tape = tape.empty() ? nullptr : tape.data();
  Watch watch(nullptr);
  run_pass<T, JetJob<T>>({kernels, nets, G, job, false, false, kernels.jet_fwd_bytes, kernels.jet_fwd, nullptr},
                         threads, watch);
  job.y_bar = y_bar.data(), job.first_bar = T_bar.data(), job.second_bar = S_bar.data(), job.x_bar = x_bar.data();
  run_pass<T, JetJob<T>>({kernels, nets, G, job, false, true, kernels.jet_bwd_bytes, kernels.jet_bwd, &sums}, threads,
                         watch);
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
    bool same = f32 == run<float>(c, 1) && f64 == run<double>(c, 3);
    same = same && f32 == run<float>(c, 2, true) && f64 == run<double>(c, 3, true);
    std::printf("%-14s fp32 %.1e  fp64 %.1e  same bits for any thread count, and with a tape: %s\n", name.c_str(), e32,
                e64, same ? "yes" : "NO");
    good = good && e32 <= 5e-6 && e64 <= 1e-12 && same;
  }
  return good ? 0 : 1;
}
