#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "cli/output.h"

namespace hadal {
namespace {
constexpr auto quiet_at_first = std::chrono::seconds(2), between_lines = std::chrono::seconds(10);
constexpr auto between_redraws = std::chrono::milliseconds(100);

size_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}
}  // namespace

std::string progress_line(const std::string& task, const std::string& things, Progress::Unit unit, int64_t done, int64_t total,
                          int64_t already, double seconds, const std::string& note) {
  const auto amount = [&](double n) { return unit == Progress::Unit::bytes ? as_bytes(n) : with_commas(int64_t(n)); };
  const double rate = seconds > 0 ? double(done - already) / seconds : 0;
  std::string line = task + ": " + amount(double(done));
  if (total > 0) line += " of " + amount(double(total));
  if (!things.empty()) line += " " + things;
  if (total > 0) line += fmt::format(", {} %", int(100.0 * double(done) / double(total)));
  if (rate > 0) line += ", " + (unit == Progress::Unit::bytes ? as_bytes(rate) : as_rate(rate)) + "/s";
  if (rate > 0 && total > done) line += ", " + as_time(double(total - done) / rate) + " left";
  return note.empty() ? line : line + ", " + note;
}

Progress::Progress(std::string task, std::string things, Unit unit)
    : task_(std::move(task)),
      things_(std::move(things)),
      unit_(unit),
      terminal_(notes_are_seen()),
      start_(Clock::now()),
      next_(start_ + quiet_at_first) {}

Progress::~Progress() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
}

void Progress::update(int64_t done, int64_t total, const std::string& note, int64_t already) {
  const auto now = Clock::now();
  if (now < next_) return;
  next_ = now + (terminal_ ? Clock::duration(between_redraws) : Clock::duration(between_lines));
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string line = progress_line(task_, things_, unit_, done, total, already, seconds, note);
  if (terminal_) {
    fmt::print(stderr, "\r{}\x1b[K", line.substr(0, terminal_width() - 1));  // a wrapped line could not be redrawn
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
  drawn_ = terminal_;
}

}  // namespace hadal
