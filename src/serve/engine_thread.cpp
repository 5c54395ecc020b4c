#include "serve/engine_thread.h"

#include <cstdint>
#include <utility>

#include "core/error.h"

namespace hadal {
namespace {

// Engines of one process share its threads: they step one at a time, in the order in which they asked.
class Turns {
 public:
  void take() {
    std::unique_lock lock(mutex_);
    const uint64_t mine = next_++;
    changed_.wait(lock, [&] { return now_ == mine; });
  }
  void give() {
    {
      const std::lock_guard lock(mutex_);
      ++now_;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ = 0, now_ = 0;
};

Turns& turns() {
  static Turns all;
  return all;
}

struct Turn {
  Turn() { turns().take(); }
  ~Turn() { turns().give(); }
};

}  // namespace

EngineThread::EngineThread(const Model& model, const EngineOptions& options, std::function<void(int64_t rows)> passed,
                           std::function<void(const std::string&)> failed)
    : engine_(model, options), passed_(std::move(passed)), failed_(std::move(failed)), thread_([this] { run(); }) {}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

uint64_t EngineThread::submit(Request request) {
  const uint64_t id = engine_.submit(std::move(request));
  wake();
  return id;
}

void EngineThread::cancel(uint64_t id) {
  engine_.cancel(id);
  wake();
}

void EngineThread::wake() {
  {
    const std::lock_guard lock(mutex_);
    news_ = true;
  }
  changed_.notify_one();
}

bool EngineThread::step() {
  const Turn turn;
  const EngineFigures before = engine_.figures();
  const bool more = engine_.step();
  const EngineFigures after = engine_.figures();
  if (after.passes > before.passes) passed_(after.prompt_rows + after.reply_rows - before.prompt_rows - before.reply_rows);
  return more;
}

void EngineThread::run() try {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    news_ = false;
    lock.unlock();
    const bool more = step();
    lock.lock();
    if (!more) changed_.wait(lock, [this] { return news_ || stop_; });
  }
} catch (const Error& error) {
  failed_(error.what());
}

}  // namespace hadal
