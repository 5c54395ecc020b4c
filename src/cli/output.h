// What a person sees: text on standard output, numbers written for reading, the Ctrl-C key.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

void put(std::string_view text);  // to standard output; Error when it cannot be written (a disk that is full)
void flush_output();

void note(std::string_view text);  // a line on standard error, dimmed on a terminal, behind all that was put

bool notes_are_seen();  // standard error is a terminal
struct Style {          // escape sequences, empty where they would only be noise
  std::string_view dim, bold, plain;
};
Style output_style();

std::string with_commas(int64_t value);         // 1,234,567
std::string as_bytes(double bytes);             // 1.23 GB; decimal units
std::string as_time(double seconds);            // 4 s, 2:05, 1:02:03
std::string as_rate(double per_second);         // three digits: 0.123, 1.23, 12.3, 123, 1,234
std::string in_quotes(std::string_view bytes);  // in double quotes, control characters escaped, invalid UTF-8 as \xNN

// Columns side by side; align has one letter per column, l or r. The first row is the heading.
std::string table(const std::vector<std::vector<std::string>>& rows, std::string_view align);

// While one of these lives Ctrl-C only sets a mark; pressed a second time it ends the program.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
};
bool interrupted();
void forget_interrupt();

}  // namespace hadal
