// Failures. What a user controls throws Error (what, expected, found); a bug of ours stops at CHECK.
#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace hadal {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
  template <class... Args>
  requires(sizeof...(Args) > 0) explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace hadal

// An invariant of this program, kept in release builds: prints where it broke and aborts.
#define CHECK(condition) ((condition) ? void(0) : ::hadal::check_failed(#condition, __FILE__, __LINE__))
