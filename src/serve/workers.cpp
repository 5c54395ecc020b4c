#include "serve/workers.h"

#include <sys/resource.h>
#include <unistd.h>

#include <utility>

namespace hadal {

Workers::Workers(int threads, int64_t most_waiting) : most_waiting_(size_t(most_waiting)) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool Workers::post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= most_waiting_) return false;
    waiting_.push_back(std::move(work));
  }
  changed_.notify_one();
  return true;
}

void Workers::run() {
  (void)::setpriority(PRIO_PROCESS, id_t(::gettid()), 5);  // replies come first
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (stop_) return;
    {
      const std::function<void()> work = std::exchange(waiting_.front(), nullptr);
      waiting_.pop_front();
      lock.unlock();
      work();
    }
    lock.lock();
  }
}

}  // namespace hadal
