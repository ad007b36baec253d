#include "networks.h"

#include <condition_variable>
#include <list>

namespace fastsiren {
namespace {

// A network in work, and how many threads are at it.
struct Seat {
  std::unique_ptr<Task> task;  // null while it is begun
  int inside;
};

class Team {
 public:
  Team(int64_t count, Watch& watch, const Begin& begin) : count_(count), watch_(watch), begin_(begin) {}

  // On the calling thread, for any of the team.
  void prepare() { seats_.push_back({begin_(next_++), 0}); }

  void work() {
    try {
      std::unique_ptr<Block> workspace;
      size_t held = 0;
      for (Seat* seat = take(); seat; seat = take()) {
        const size_t bytes = seat->task->bytes();
        if (!workspace || bytes > held) {
          workspace = nullptr;
          workspace = std::make_unique<Block>(held = bytes);
        }
        seat->task->run(workspace->data());
        leave(seat);
      }
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      watch_.stop.store(true);
      begun_.notify_all();
      throw;
    }
  }

  // Networks without points, which nobody took.
  void close() {
    for (Seat& seat : seats_)
      if (!watch_.stop.load()) seat.task->finish();
  }

 private:
  // The next network to work at; null when there is nothing left to do.
  Seat* take() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (next_ < count_ && !watch_.stop.load()) return begin(lock);
    while (!watch_.stop.load()) {
      bool coming = false;
      for (Seat& seat : seats_) {
        if (!seat.task) {
          coming = true;
        } else if (seat.task->open()) {
          seat.inside++;
          return &seat;
        }
      }
      if (!coming) break;
      begun_.wait(lock);
    }
    return nullptr;
  }

  Seat* begin(std::unique_lock<std::mutex>& lock) {
    const int64_t network = next_++;
    Seat* const seat = &seats_.emplace_back(Seat{nullptr, 1});
    lock.unlock();
    std::unique_ptr<Task> task = begin_(network);
    lock.lock();
    seat->task = std::move(task);
    begun_.notify_all();
    return seat;
  }

  // All blocks of the network are taken: nobody joins it any more.
  void leave(Seat* seat) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (--seat->inside) return;
    const std::unique_ptr<Task> task = std::move(seat->task);
    seats_.remove_if([&](const Seat& other) { return &other == seat; });
    lock.unlock();
    if (!watch_.stop.load()) task->finish();
  }

  const int64_t count_;
  Watch& watch_;
  const Begin& begin_;
  int64_t next_ = 0;
  std::list<Seat> seats_;
  std::mutex mutex_;
  std::condition_variable begun_;
};

}  // namespace

void run_networks(int64_t count, int threads, Watch& watch, const Begin& begin) {
  Team team(count, watch, begin);
  if (count == 1) team.prepare();
  parallel(threads, [&](int) { team.work(); });
  team.close();
}

}  // namespace fastsiren
