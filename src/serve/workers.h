// Threads for what is too slow for the server's own: bodies are read, prompts rendered and tokenized, grammars compiled there.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace hadal {

class Workers {
 public:
  Workers(int threads, int64_t most_waiting);
  ~Workers();                             // work that is going on is waited for, what has not begun is dropped
  bool post(std::function<void()> work);  // first come, first begun. False: too many wait. It must not throw

 private:
  void run();

  const size_t most_waiting_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace hadal
