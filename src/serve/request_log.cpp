#include "serve/request_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

int open_log(const std::string& path) {
  if (path == "-") return STDOUT_FILENO;
  const int file = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
  if (file < 0) throw Error("cannot open the log {}: {}", path, std::strerror(errno));
  return file;
}

std::string time_now() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm parts = {};
  ::gmtime_r(&seconds, &parts);
  const int64_t milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                     parts.tm_min, parts.tm_sec, milliseconds);
}

Json milliseconds(Visit::Clock::time_point from, const std::optional<Visit::Clock::time_point>& to) {
  if (!to) return nullptr;
  return std::chrono::duration_cast<std::chrono::microseconds>(*to - from).count() / 1000.0;
}

}  // namespace

RequestLog::RequestLog(std::string path, bool content)
    : path_(std::move(path)), content_(content), file_(open_log(path_)), thread_([this] { run(); }) {}

RequestLog::~RequestLog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
  if (path_ != "-" && file_ >= 0) ::close(file_);
}

void RequestLog::tell(const Visit& visit, int status) {
  Json line{{"time", time_now()},     {"id", visit.id},     {"key", visit.key_name},
            {"method", visit.method}, {"path", visit.path}, {"status", status}};
  if (!visit.model.empty()) {
    line["model"] = visit.model;
    line["prompt_tokens"] = visit.prompt_tokens;
    line["cached_tokens"] = visit.cached_tokens;
    line["reply_tokens"] = visit.reply_tokens;
    line["queue_ms"] = milliseconds(visit.arrival, visit.begun);
    line["first_token_ms"] = milliseconds(visit.arrival, visit.first_token);
    line["finish"] = visit.finish;
  }
  line["total_ms"] = milliseconds(visit.arrival, Visit::Clock::now());
  if (content_) line["asked"] = visit.asked, line["answered"] = visit.answered;
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  {
    const std::lock_guard lock(mutex_);
    if (lines_ >= most_waiting || waiting_.size() + text.size() > most_bytes) {
      ++dropped_;
      return;
    }
    waiting_ += text;
    ++lines_;
  }
  changed_.notify_one();
}

void RequestLog::reopen() {
  {
    const std::lock_guard lock(mutex_);
    reopen_ = true;
  }
  changed_.notify_one();
}

void RequestLog::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || reopen_ || lines_ > 0; });
    const bool again = std::exchange(reopen_, false), last = stop_;
    const std::string text = std::exchange(waiting_, {});
    const size_t lines = std::exchange(lines_, 0);
    lock.unlock();
    write(text, lines);  // what was told before the file was moved belongs to it
    if (again && path_ != "-") {
      if (file_ >= 0) ::close(file_);
      file_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);  // -1: lines are dropped and counted until it can
    }
    lock.lock();
    if (last && lines_ == 0) return;
  }
}

// One piece for many lines: they are not torn apart by others who append.
void RequestLog::write(const std::string& text, size_t lines) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t wrote = ::write(file_, text.data() + at, text.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      dropped_ += int64_t(lines);
      return;
    }
    at += size_t(wrote);
  }
}

}  // namespace hadal
