// How far a long task is, on standard error: nothing in its first two seconds, then one line that is redrawn on a terminal,
// or a line now and then where standard error is a file.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace hadal {

class Progress {
 public:
  enum class Unit { count, bytes };
  Progress(std::string task, std::string things, Unit unit = Unit::count);  // Progress("perplexity", "windows")
  ~Progress();                                                              // takes the line off the terminal
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  // total 0: not known. `already`: done before this task began (a download that goes on), no part of the rate.
  void update(int64_t done, int64_t total, const std::string& note = "", int64_t already = 0);

 private:
  using Clock = std::chrono::steady_clock;
  std::string task_, things_;
  Unit unit_;
  bool terminal_, drawn_ = false;
  Clock::time_point start_, next_;
};

// The line itself, e.g. "perplexity: 12 of 40 windows, 30 %, 1.5/s, 19 s left, so far 7.20".
std::string progress_line(const std::string& task, const std::string& things, Progress::Unit unit, int64_t done, int64_t total,
                          int64_t already, double seconds, const std::string& note);

}  // namespace hadal
