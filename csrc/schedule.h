// Threads, work claiming, sums over points and memory. Compiled without instruction-set flags.
#pragma once
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine.h"

namespace fastsiren {

struct Pool;
// The process-wide pools: what threads work in, and tapes.
Pool& workspaces();
Pool& tapes();

// A page-aligned block from a pool. Blocks go back to the pool, not to the system: fresh pages cost more than the work.
class Block {
 public:
  explicit Block(size_t bytes, Pool& pool = workspaces());
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  char* data() const { return data_; }

 private:
  Pool& pool_;
  char* data_;
  size_t bytes_;
};

// Adds the buffers of segments 0 .. n-1 along a binary tree over their numbers. Whoever completes a pair adds it, so
// the shape of the tree, and with it every bit of the result, is the same for any number of threads.
class SegmentTree {
 public:
  SegmentTree(int64_t segments, size_t value_size, int64_t values, int64_t doubles);
  SegmentSums begin();
  void end(int64_t segment, const SegmentSums& sums);
  SegmentSums root() const { return root_; }

 private:
  SegmentSums take();
  size_t value_size_;
  int64_t values_, doubles_;
  std::vector<std::vector<SegmentSums>> waiting_;  // per level, by pair
  std::vector<int64_t> width_;                     // nodes per level
  std::vector<SegmentSums> free_;
  std::vector<std::unique_ptr<Block>> blocks_;
  SegmentSums root_{nullptr, nullptr};
  std::mutex mutex_;
};

using Interrupted = std::function<bool()>;

// Whether a call shall end early: interrupted, or failed on another thread.
struct Watch {
  explicit Watch(Interrupted check);
  std::atomic<bool> stop{false};
  const Interrupted interrupted;
  std::chrono::steady_clock::time_point last;
};

struct Schedule {
  Schedule(int64_t count, Watch& watch, SegmentTree* sums) : blocks(count), watch(watch), tree(sums) {}
  std::atomic<int64_t> next{0};
  const int64_t blocks;
  Watch& watch;
  SegmentTree* const tree;
};

// Calls work(id) for id = 0 .. threads-1, whatever team the runtime really gives; id 0 runs on the calling thread. What
// a call throws is thrown again here once all have ended.
void parallel(int threads, const std::function<void(int)>& work);

// Raises in a process forked after the engine had started threads: such a child would hang.
void refuse_after_fork();

}  // namespace fastsiren
