// Many networks in one call. One thread begins a network and goes through its blocks; once all are begun, threads that
// are free join those with blocks left. So a network is packed once, by who works on it, and no more networks are held
// than there are threads.
#pragma once
#include "schedule.h"

namespace fastsiren {

// One network while threads work on it.
class Task {
 public:
  virtual ~Task() = default;
  virtual size_t bytes() const = 0;       // workspace of one thread
  virtual void run(void* workspace) = 0;  // claims blocks until none is left
  virtual bool open() const = 0;          // whether blocks are left
  virtual void finish() = 0;              // by one thread, when all blocks are done
};

using Begin = std::function<std::unique_ptr<Task>(int64_t network)>;

// Runs all networks on up to `threads` threads. A single one is begun before the team starts, which it may use itself.
void run_networks(int64_t count, int threads, Watch& watch, const Begin& begin);

}  // namespace fastsiren
