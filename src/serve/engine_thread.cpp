#include "serve/engine_thread.h"

#include <utility>

#include "core/error.h"

namespace hadal {

EngineThread::EngineThread(const Model& model, const EngineOptions& options, std::function<void(const std::string&)> failed)
    : engine_(model, options), failed_(std::move(failed)), thread_([this] { run(); }) {}

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

void EngineThread::run() try {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    news_ = false;
    lock.unlock();
    const bool more = engine_.step();
    lock.lock();
    if (!more) changed_.wait(lock, [this] { return news_ || stop_; });
  }
} catch (const Error& error) {
  failed_(error.what());
}

}  // namespace hadal
