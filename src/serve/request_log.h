// A line of JSON for each call that was answered, written by a thread of its own: whoever computes never waits for a disk.
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "serve/visit.h"

namespace hadal {

class RequestLog {
 public:
  // path -: standard output. content: prompts and replies are written too. Error: the file cannot be opened
  RequestLog(std::string path, bool content);
  ~RequestLog();  // what was told is written
  void tell(const Visit& visit, int status);
  void reopen();  // after the file has been moved away
  bool content() const { return content_; }
  int64_t dropped() const { return dropped_; }  // lines: the disk was full, or too slow for too long

 private:
  void run();
  void write(const std::string& text, size_t lines);

  static constexpr size_t most_waiting = 10'000, most_bytes = size_t(64) << 20;
  const std::string path_;
  const bool content_;
  int file_ = -1;
  std::atomic<int64_t> dropped_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;
  size_t lines_ = 0;
  bool reopen_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace hadal
