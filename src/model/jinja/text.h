// Text as Python's str sees it: characters over UTF-8 bytes (a byte that is not UTF-8 counts as one), and how values are written out.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/jinja/value.h"

namespace hadal::jinja {

size_t character_size(std::string_view text, size_t at);  // bytes of the character there, 1..4
size_t character_count(std::string_view text);
char32_t character_at(std::string_view text, size_t at);  // 0xdc00 + byte where it is not UTF-8
void append_character(std::string& out, char32_t c);
bool is_space(char32_t c);

std::string_view strip_left(std::string_view text);  // of Unicode's white space
std::string_view strip_right(std::string_view text);
std::string_view strip_left(std::string_view text, std::string_view characters);  // of any of these
std::string_view strip_right(std::string_view text, std::string_view characters);

// One character for one. Of Python's longer forms upper() knows "SS" for "ß", the only one in use.
char32_t to_upper(char32_t c);
char32_t to_lower(char32_t c);
char32_t to_title(char32_t c);
std::string_view category(char32_t c);  // Unicode's, as "Lu"
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);  // the first character upper, the rest lower

// As find and rfind of std::string, in bounded time.
size_t find_text(Bounds& bounds, std::string_view text, std::string_view piece, size_t from = 0);
size_t find_last_text(Bounds& bounds, std::string_view text, std::string_view piece);
std::string replace_all(Bounds& bounds, std::string_view text, std::string_view from, std::string_view to, int64_t most = -1);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);

std::string write(Bounds& bounds, const Value& value);      // str(value): what {{ value }} prints
std::string represent(Bounds& bounds, const Value& value);  // repr(value)
std::string write_real(double value);                       // repr(float)

struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  bool lines = false;  // one item a line
  std::string indent, between_items = ", ", after_key = ": ";
};
std::string write_json(Bounds& bounds, const Value& value, const JsonStyle& style);  // json.dumps; Error for what JSON has not
// Error names `what`. each: what becomes of each string; empty: as it is
Value read_json(Bounds& bounds, const std::string& text, std::string_view what,
                const std::function<std::string(const std::string&)>& each = {});

}  // namespace hadal::jinja
