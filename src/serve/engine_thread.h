// An engine that runs by itself: requests come from any thread, their callbacks are called on the engine's own.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "infer/engine.h"

namespace hadal {

class EngineThread {
 public:
  // failed: called once, on the engine's thread, when a step could not be done (a disk that does not read): nothing more comes then.
  // passed: called behind each forward pass, on the engine's thread, with the rows that it computed.
  EngineThread(const Model& model, const EngineOptions& options, std::function<void(int64_t rows)> passed,
               std::function<void(const std::string&)> failed);
  ~EngineThread();  // whatever still runs is dropped without a further call
  void check(const Request& request) const { engine_.check(request); }
  uint64_t submit(Request request);  // Error: as Engine::submit
  void cancel(uint64_t id);
  int64_t cache_rows() const { return engine_.cache_rows(); }
  EngineFigures figures() const { return engine_.figures(); }

 private:
  void run();
  bool step();  // in this engine's turn
  void wake();

  Engine engine_;
  const std::function<void(int64_t rows)> passed_;
  const std::function<void(const std::string&)> failed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool news_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace hadal
