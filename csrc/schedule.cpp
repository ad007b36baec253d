#include "schedule.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace fastsiren {
namespace {

constexpr size_t PAGE = 4096;

std::atomic<bool> started{false}, forked{false};
thread_local bool calling_thread = false;

}  // namespace

struct Pool {
  size_t most;  // idle blocks
  std::mutex mutex;
  std::vector<std::pair<size_t, char*>> free;
  explicit Pool(size_t count) : most(count) {}
};

// Never destroyed: worker threads may still hold blocks while the interpreter shuts down.
Pool& workspaces() {
  static Pool* p = new Pool(SIZE_MAX);
  return *p;
}
// As many tapes may be in use as there are graphs, but few are used in turn.
Pool& tapes() {
  static Pool* p = new Pool(2);
  return *p;
}

Block::Block(size_t bytes, Pool& pool) : pool_(pool), bytes_((bytes + PAGE - 1) / PAGE * PAGE) {
  Pool& p = pool_;
  {
    std::lock_guard<std::mutex> lock(p.mutex);
    auto best = p.free.end();
    for (auto it = p.free.begin(); it != p.free.end(); ++it)
      if (it->first >= bytes_ && (best == p.free.end() || it->first < best->first)) best = it;
    if (best != p.free.end()) {
      bytes_ = best->first, data_ = best->second;
      p.free.erase(best);
      return;
    }
    // A larger block replaces the largest idle one, so that the pool does not keep every size it ever saw.
    auto largest = std::max_element(p.free.begin(), p.free.end());
    if (largest != p.free.end()) {
      std::free(largest->second);
      p.free.erase(largest);
    }
  }
  data_ = bytes_ ? static_cast<char*>(std::aligned_alloc(PAGE, bytes_)) : nullptr;
  if (bytes_ && !data_) throw std::bad_alloc();
}

Block::~Block() {
  if (!data_) return;
  std::lock_guard<std::mutex> lock(pool_.mutex);
  if (pool_.free.size() < pool_.most)
    pool_.free.emplace_back(bytes_, data_);
  else
    std::free(data_);
}

SegmentTree::SegmentTree(int64_t segments, size_t value_size, int64_t values, int64_t doubles)
    : value_size_(value_size), values_(values), doubles_(doubles) {
  for (int64_t n = segments; n > 0; n = n == 1 ? 0 : (n + 1) / 2) {
    width_.push_back(n);
    waiting_.emplace_back(static_cast<size_t>(n / 2), SegmentSums{nullptr, nullptr});
  }
}

SegmentSums SegmentTree::take() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!free_.empty()) {
    SegmentSums s = free_.back();
    free_.pop_back();
    return s;
  }
  const size_t head = (static_cast<size_t>(doubles_) * sizeof(double) + 63) / 64 * 64;
  blocks_.push_back(std::make_unique<Block>(head + static_cast<size_t>(values_) * value_size_));
  char* p = blocks_.back()->data();
  return {p + head, reinterpret_cast<double*>(p)};
}

SegmentSums SegmentTree::begin() {
  SegmentSums s = take();
  std::memset(s.values, 0, static_cast<size_t>(values_) * value_size_);
  std::memset(s.doubles, 0, static_cast<size_t>(doubles_) * sizeof(double));
  return s;
}

template <class T>
static void add(void* into, const void* from, int64_t n) {
  T* a = static_cast<T*>(into);
  const T* b = static_cast<const T*>(from);
  for (int64_t i = 0; i < n; i++) a[i] += b[i];
}

void SegmentTree::end(int64_t segment, const SegmentSums& sums) {
  SegmentSums mine = sums;
  int64_t node = segment;
  for (size_t level = 0; width_[level] > 1; level++, node /= 2) {
    // The last node of an odd level has no partner and moves up as it is.
    if (node == width_[level] - 1 && node % 2 == 0) continue;
    SegmentSums other;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      SegmentSums& slot = waiting_[level][static_cast<size_t>(node / 2)];
      if (!slot.values) {
        slot = mine;
        return;
      }
      other = slot;
    }
    if (value_size_ == sizeof(float))
      add<float>(mine.values, other.values, values_);
    else
      add<double>(mine.values, other.values, values_);
    add<double>(mine.doubles, other.doubles, doubles_);
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(other);
  }
  root_ = mine;
}

Watch::Watch(Interrupted check) : interrupted(std::move(check)), last(std::chrono::steady_clock::now()) {}

int64_t claim(Schedule& s) {
  if (s.watch.stop.load(std::memory_order_relaxed)) return -1;
  const int64_t block = s.next.fetch_add(1, std::memory_order_relaxed);
  return block < s.blocks ? block : -1;
}

void poll(Schedule& s) {
  Watch& watch = s.watch;
  if (!calling_thread || !watch.interrupted) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - watch.last < std::chrono::milliseconds(50)) return;
  watch.last = now;
  if (watch.interrupted()) watch.stop.store(true, std::memory_order_relaxed);
}

SegmentSums segment_begin(Schedule& s) {
  return s.tree->begin();
}
void segment_end(Schedule& s, int64_t segment, const SegmentSums& sums) {
  s.tree->end(segment, sums);
}

void parallel(int threads, const std::function<void(int)>& work) {
  started.store(true);
  // A signal handler may call the engine in the middle of a call.
  const bool outer = calling_thread;
  calling_thread = true;
  std::exception_ptr failure;
  std::mutex mutex;
  // An exception must not leave a thread of the team: the first one is kept and thrown on the calling thread.
  const auto body = [&](int id) {
    try {
      work(id);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  if (threads <= 1) {
    body(0);
  } else {
#ifdef _OPENMP
    // A team may be smaller than asked for, in a nested region or under a thread limit: every id is served all the
    // same.
#pragma omp parallel num_threads(threads)
    for (int id = omp_get_thread_num(); id < threads; id += omp_get_num_threads()) body(id);
#else
    std::vector<std::thread> team;
    for (int id = 1; id < threads; id++) team.emplace_back(body, id);
    body(0);
    for (auto& t : team) t.join();
#endif
  }
  calling_thread = outer;
  if (failure) std::rethrow_exception(failure);
}

void refuse_after_fork() {
#if defined(__unix__) || defined(__APPLE__)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forked.store(started.load()); });
  (void)registered;
#endif
  if (forked.load())
    throw std::runtime_error(
        "fastsiren's C++ engine was used before this process was forked, and its threads do not survive a fork; start "
        "workers with the 'spawn' or 'forkserver' method");
}

}  // namespace fastsiren
