#include "cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace hadal {
namespace {

volatile std::sig_atomic_t interrupts = 0;

void on_interrupt(int) {
  interrupts = interrupts + 1;
  if (interrupts > 1) std::signal(SIGINT, SIG_DFL);
}

std::string unwritten;  // to standard output

// Bytes of the well-formed UTF-8 character at the start of `text`, 0 when there is none.
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : uint8_t(0); };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const uint8_t first = byte(0);
  if (first < 0x80) return text.empty() ? 0 : 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if ((first & 0xf0) == 0xe0) {
    const bool overlong = first == 0xe0 && byte(1) < 0xa0, surrogate = first == 0xed && byte(1) >= 0xa0;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool overlong = first == 0xf0 && byte(1) < 0x90, beyond = first == 0xf4 && byte(1) >= 0x90;
    return continues(1) && continues(2) && continues(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

// Columns that text takes, near enough: one for each character.
size_t width_of(std::string_view text) {
  return size_t(std::count_if(text.begin(), text.end(), [](char c) { return (uint8_t(c) & 0xc0) != 0x80; }));
}

Style style_for(int file) {
  const char* kind = std::getenv("TERM");
  const bool plain = !::isatty(file) || kind == nullptr || std::strcmp(kind, "dumb") == 0 || std::getenv("NO_COLOR") != nullptr;
  return plain ? Style{} : Style{"\x1b[2m", "\x1b[1m", "\x1b[0m"};
}

}  // namespace

void put(std::string_view text) {
  static constexpr size_t enough = size_t(1) << 16;
  static const bool seen = ::isatty(STDOUT_FILENO);
  unwritten += text;
  if (unwritten.size() >= enough || (seen && text.find('\n') != text.npos)) flush_output();
}
void flush_output() {
  std::string_view left = unwritten;
  while (!left.empty()) {
    const ssize_t count = ::write(STDOUT_FILENO, left.data(), left.size());
    if (count < 0 && errno == EINTR) continue;  // Ctrl-C: stdio would lose what it holds
    if (count < 0) {
      unwritten.clear();
      throw Error("cannot write to standard output: {}", std::strerror(errno));
    }
    left.remove_prefix(size_t(count));
  }
  unwritten.clear();
}

void note(std::string_view text) {
  flush_output();
  const Style style = style_for(STDERR_FILENO);
  fmt::print(stderr, "{}{}{}\n", style.dim, text, style.plain);
}

bool notes_are_seen() { return ::isatty(STDERR_FILENO); }
Style output_style() { return style_for(STDOUT_FILENO); }

std::string with_commas(int64_t value) {
  std::string text = std::to_string(value);
  const size_t sign = value < 0 ? 1 : 0;
  for (size_t at = text.size(); at > sign + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

std::string as_bytes(double bytes) {
  const char* const units[] = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  for (; bytes >= 999.5 && unit < 4; ++unit) bytes /= 1000;
  if (unit == 0) return fmt::format("{:.0f} B", bytes);
  return fmt::format("{:.{}f} {}", bytes, bytes < 9.995 ? 2 : bytes < 99.95 ? 1 : 0, units[unit]);
}

std::string as_time(double seconds) {
  const int64_t whole = std::llround(std::clamp(seconds, 0.0, 1e9));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string as_rate(double per_second) {
  if (!std::isfinite(per_second)) return "-";
  if (per_second >= 99.95) return with_commas(std::llround(std::min(per_second, 1e18)));
  return fmt::format("{:.{}f}", per_second, per_second < 0.9995 ? 3 : per_second < 9.995 ? 2 : 1);
}

std::string in_quotes(std::string_view bytes) {
  std::string out = "\"";
  while (!bytes.empty()) {
    const size_t length = character_length(bytes);
    const char c = bytes[0];
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (length == 0 || uint8_t(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", uint8_t(c));
    } else {
      out += bytes.substr(0, length);
    }
    bytes.remove_prefix(std::max<size_t>(length, 1));
  }
  return out + '"';
}

std::string table(const std::vector<std::vector<std::string>>& rows, std::string_view align) {
  std::vector<size_t> widths(align.size());
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string space(widths[c] - width_of(row[c]), ' ');
      if (c > 0) line += "  ";
      line += align[c] == 'r' ? space + row[c] : row[c] + space;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

InterruptGuard::InterruptGuard() {
  interrupts = 0;
  struct sigaction action {};
  action.sa_handler = on_interrupt;  // without SA_RESTART: a read of the keyboard returns
  ::sigaction(SIGINT, &action, nullptr);
}
InterruptGuard::~InterruptGuard() { std::signal(SIGINT, SIG_DFL); }

bool interrupted() { return interrupts > 0; }
void forget_interrupt() { interrupts = 0; }

}  // namespace hadal
