// One pass over many networks as tasks: the job of each, and what becomes of its sums.
#pragma once
#include <algorithm>

#include "networks.h"
#include "pack.h"

namespace fastsiren {

// Parameters of many networks: those of the first, and the distance in elements from one to the next, per affine map.
template <class T>
struct Stack {
  Net<T> first;
  std::vector<int64_t> weight_steps, bias_steps;
  Net<T> at(int64_t network) const {
    Net<T> net = first;
    for (size_t l = 0; l < net.size(); l++) {
      net[l].W += network * weight_steps[l];
      net[l].b += network * bias_steps[l];
    }
    return net;
  }
};

// Where the sums of many networks go, contiguous: losses [G], and per affine map [G, out, in] and [G, out].
template <class T>
struct SumTargets {
  T* losses;                        // or null
  std::vector<T*> weights, biases;  // empty when not wanted; weights not without biases
};

// Moves `p` to row `n` of rows of `size` numbers; null stays null.
template <class T>
void move_rows(T*& p, int64_t n, int64_t size) {
  if (p) p += n * size;
}

template <class T, template <class> class Job>
void move_common(Job<T>& job, int64_t n) {
  const int64_t D = job.net.D, O = job.net.O;
  move_rows(job.points.x, n, D), move_rows(job.x_bar, n, D);
  move_rows(job.y, n, O), move_rows(job.y_bar, n, O);
  if (job.V_rows) move_rows(job.V, n, job.K * D);
  move_rows(job.V_bar, n, job.K * D);
  move_rows(job.loss.target, n, job.loss.kind == LossKind::gradient ? O * D : O);
  move_rows(job.loss.weight, n, 1);
}

// The job of a network, from that of the first. Rows of a network follow those of the one before, as tapes do.
template <class T>
void move_job(JetJob<T>& job, const Kernels<T>& kernels, int64_t network) {
  const int64_t O = job.net.O, form = job.R * job.K * job.K, n = network * job.N;
  move_rows(job.tape, network, kernels.tape_size(job.net.width, job.net.sines, 1 + job.K + job.R, job.N));
  move_common<T, JetJob>(job, n);
  move_rows(job.first, n, job.K * O), move_rows(job.first_bar, n, job.K * O);
  move_rows(job.second, n, job.R * O), move_rows(job.second_bar, n, job.R * O);
  if (job.M_rows) move_rows(job.M, n, form);
  move_rows(job.M_bar, n, form);
}

template <class T>
void move_job(SandwichJob<T>& job, const Kernels<T>&, int64_t network) {
  const int64_t D = job.net.D, O = job.net.O, n = network * job.N;
  move_common<T, SandwichJob>(job, n);
  move_rows(job.jacobian, n, job.C * D), move_rows(job.jacobian_bar, n, job.C * D);
  move_rows(job.hessian, n, job.C * job.K * job.K), move_rows(job.hessian_bar, n, job.C * job.K * job.K);
  if (job.E_rows) move_rows(job.E, n, job.C * O);
  move_rows(job.E_bar, n, job.C * O);
}

// Which coefficients of the forms are ever used. A gradient of the forms needs all of them.
template <class T>
std::vector<Term> find_terms(const JetJob<T>& job) {
  const int64_t rows = job.M_rows ? job.N : 1, K = job.K;
  std::vector<Term> terms;
  for (int32_t r = 0; r < job.R; r++)
    for (int32_t k = 0; k < K; k++)
      for (int32_t j = k; j < K; j++) {
        bool used = job.M_bar != nullptr;
        for (int64_t n = 0; n < rows && !used; n++) {
          const T* m = job.M + (n * job.R + r) * K * K;
          used = m[k * K + j] != 0 || m[j * K + k] != 0;
        }
        if (used) terms.push_back({r, k, j});
      }
  return terms;
}

template <class T>
void set_terms(JetJob<T>& job, std::vector<Term>& terms) {
  terms = find_terms(job);
  job.terms = terms.data(), job.n_terms = static_cast<int64_t>(terms.size());
}
template <class T>
void set_terms(SandwichJob<T>&, std::vector<Term>&) {}

template <class T>
void set_dots(JetJob<T>& job, const Packed<T>& dots) {
  job.dots = &dots;
}
template <class T>
void set_dots(SandwichJob<T>&, const Packed<T>&) {}

// One pass over one or many networks.
template <class T, class Job>
struct Pass {
  const Kernels<T>& kernels;
  Stack<T> nets;
  int64_t networks;
  Job job;             // of the first network, without what the packing fills in; N is the points of each
  bool points_shared;  // by all networks
  bool down;           // see PackedNet
  size_t (*bytes)(const Job&);
  void (*kernel)(const Job&, Schedule&, void* workspace);
  const SumTargets<T>* sums;       // null for a forward pass
  const Stack<T>* dots = nullptr;  // tangents of the parameters, for value_bwdbwd
};

template <class T, class Job>
class PassTask final : public Task {
 public:
  PassTask(const Pass<T, Job>& pass, int64_t network, int threads, Watch& watch)
      : pass_(pass),
        network_(network),
        net_(pass.nets.at(network)),
        packed_(net_, pass.kernels, pass.down, threads),
        job_(pass.job),
        buffers_(net_, pass.kernels.gradient_align, pass.sums && !pass.sums->weights.empty()) {
    const T* points = job_.points.x;
    job_.net = packed_.get();
    move_job(job_, pass.kernels, network);
    if (pass.points_shared) job_.points.x = points;
    set_terms(job_, terms_);
    if (pass.dots) {
      dots_ = std::make_unique<PackedNet<T>>(PackedNet<T>::tangents(pass.dots->at(network), pass.kernels, threads));
      set_dots(job_, dots_->get());
    }
    int64_t block = BLOCK_POINTS;
    if (pass.sums) plan_sums(), block = segment_points(job_.N);
    schedule_ = std::make_unique<Schedule>((job_.N + block - 1) / block, watch, tree_.get());
  }
  size_t bytes() const override { return pass_.bytes(job_); }
  void run(void* workspace) override { pass_.kernel(job_, *schedule_, workspace); }
  bool open() const override { return schedule_->next.load() < schedule_->blocks; }
  void finish() override {
    if (!pass_.sums) return;
    const SegmentSums root = tree_->root();
    if (pass_.sums->losses) pass_.sums->losses[network_] = static_cast<T>(root.values ? root.doubles[0] : 0.0);
    if (!job_.parameters) return;
    std::vector<T*> weights = pass_.sums->weights, biases = pass_.sums->biases;
    for (size_t l = 0; l < net_.size(); l++) {
      if (!weights.empty()) weights[l] += network_ * net_[l].out * net_[l].in;
      biases[l] += network_ * net_[l].out;
    }
    buffers_.store(root, weights, biases);
  }

 private:
  void plan_sums() {
    const int64_t segment = segment_points(job_.N);
    job_.parameters = !pass_.sums->biases.empty();
    job_.layout = buffers_.layout();
    if (!job_.parameters) job_.layout.elements = 0;
    tree_ = std::make_unique<SegmentTree>((job_.N + segment - 1) / segment, sizeof(T), job_.layout.elements,
                                          job_.layout.doubles);
  }
  const Pass<T, Job>& pass_;
  const int64_t network_;
  const Net<T> net_;
  const PackedNet<T> packed_;
  std::unique_ptr<PackedNet<T>> dots_;
  std::vector<Term> terms_;
  Job job_;
  GradientBuffers<T> buffers_;
  std::unique_ptr<SegmentTree> tree_;
  std::unique_ptr<Schedule> schedule_;
};

template <class T, class Job>
void run_pass(const Pass<T, Job>& pass, int threads, Watch& watch) {
  const int64_t block = pass.sums ? segment_points(pass.job.N) : BLOCK_POINTS;
  const int64_t blocks = (pass.job.N + block - 1) / block * pass.networks;
  const int team = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, blocks)));
  const int packing = pass.networks == 1 ? threads : 1;
  run_networks(pass.networks, team, watch,
               [&](int64_t network) { return std::make_unique<PassTask<T, Job>>(pass, network, packing, watch); });
}

}  // namespace fastsiren
