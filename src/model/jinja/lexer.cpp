// The two levels of a template: text with tags in it, and the small language inside the tags.
#include "model/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "model/jinja/text.h"

namespace hadal::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool begins_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || uint8_t(c) >= 0x80; }

std::string one_kind_of_newline(const std::string& source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      out += '\n';
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(const std::string& source) : source_(one_kind_of_newline(source)) {}

  std::vector<Token> read() {
    while (at_ < source_.size()) {
      const size_t tag = next_tag();
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      add_text(source_.substr(at_, tag - at_), tag == source_.size() ? '\0' : source_[tag + 1], sign);
      if (tag == source_.size()) break;
      at_ = tag + 2 + (sign == '-' || sign == '+');
      if (source_[tag + 1] == '#') {
        skip_comment();
      } else if (source_[tag + 1] == '{') {
        read_tag(Token::Kind::print_begin, Token::Kind::print_end);
      } else if (!read_raw()) {
        read_tag(Token::Kind::block_begin, Token::Kind::block_end);
      }
    }
    add(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
    throw Error("line {}: {}", line_, fmt::format(format, std::forward<Args>(args)...));
  }
  void add(Token::Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  void pass(size_t size) {
    line_ += int(std::count(source_.begin() + long(at_), source_.begin() + long(at_ + size), '\n'));
    at_ += size;
  }
  size_t next_tag() const {
    for (size_t i = at_; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) return i;
    }
    return source_.size();
  }

  // `tag`: the second character of what follows the text; '\0' at the end of the source. at_ is still at the text.
  void add_text(std::string text, char tag, char sign) {
    std::string_view kept = text;
    if (tag && sign == '-') {
      kept = strip_right(kept);
    } else if (tag && sign != '+' && tag != '{') {
      const size_t line_start = kept.rfind('\n') + 1;
      if ((line_start > 0 || line_starts_) && strip_left(kept.substr(line_start)).empty()) kept = kept.substr(0, line_start);
    }
    if (!kept.empty()) add(Token::Kind::text, std::string(kept));
    pass(text.size());
    line_starts_ = false;
  }

  // After a tag: '-' takes all white space that follows, otherwise a block or comment takes one newline.
  void close(size_t size, bool strip, bool trim) {
    pass(size);
    const size_t space = strip ? rest().size() - strip_left(rest()).size() : trim && !rest().empty() && rest()[0] == '\n' ? 1 : 0;
    pass(space);
    line_starts_ = space > 0 && source_[at_ - 1] == '\n';
  }

  void skip_comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail("a comment is not closed");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    close(end + 2 - at_, sign == '-', sign != '+');
  }

  // {% raw %}: everything up to {% endraw %} is text.
  bool read_raw() {
    const auto word_follows = [&](size_t& at, std::string_view word) {
      while (at < source_.size() && is_space(uint8_t(source_[at])) && uint8_t(source_[at]) < 0x80) ++at;
      if (source_.compare(at, word.size(), word) != 0) return false;
      at += word.size();
      while (at < source_.size() && is_space(uint8_t(source_[at])) && uint8_t(source_[at]) < 0x80) ++at;
      return true;
    };
    size_t at = at_;
    if (!word_follows(at, "raw")) return false;
    const bool strip_after = source_.compare(at, 3, "-%}") == 0;
    if (!strip_after && source_.compare(at, 2, "%}") != 0) return false;
    close(at + 2 + strip_after - at_, strip_after, false);
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 2)) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      size_t end = tag + 2 + (sign == '-' || sign == '+');
      if (!word_follows(end, "endraw")) continue;
      const char end_sign = end < source_.size() ? source_[end] : '\0';
      end += end_sign == '-' || end_sign == '+';
      if (source_.compare(end, 2, "%}") != 0) continue;
      add_text(source_.substr(at_, tag - at_), '%', sign);
      close(end + 2 - at_, end_sign == '-', end_sign != '+');
      return true;
    }
    fail("'raw' is not closed");
  }

  void read_tag(Token::Kind begin, Token::Kind end) {
    const std::string_view closing = end == Token::Kind::print_end ? "}}" : "%}";
    add(begin, "");
    std::string open;  // brackets: inside them "}}" closes dicts, not the tag
    for (;;) {
      pass(rest().size() - strip_left(rest()).size());
      if (rest().empty()) fail("a tag is not closed, '{}' is expected", closing);
      if (open.empty()) {
        const bool strip = rest()[0] == '-', plus = rest()[0] == '+' && end == Token::Kind::block_end;
        if (rest().substr(strip || plus, 2) == closing) {
          add(end, "");
          return close(2 + (strip || plus), strip, end == Token::Kind::block_end && !plus);
        }
      }
      read_token(open);
    }
  }

  void read_token(std::string& open) {
    const char c = rest()[0];
    if (begins_name(c)) return read_name();
    if (is_digit(c)) return read_number();
    if (c == '\'' || c == '"') return read_string();
    for (const std::string_view sign : {"**", "//", "==", "!=", "<=", ">="}) {
      if (rest().substr(0, 2) == sign) return read_sign(2);
    }
    if (std::string_view("+-*/%~<>=.:|,;()[]{}").find(c) == std::string_view::npos) fail("unexpected character '{}'", c);
    if (c == '(' || c == '[' || c == '{') open += c;
    if (c == ')' || c == ']' || c == '}') {
      const char opening = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open.empty() || open.back() != opening) fail("unexpected '{}'", c);
      open.pop_back();
    }
    read_sign(1);
  }

  void read_sign(size_t size) {
    add(Token::Kind::sign, std::string(rest().substr(0, size)));
    pass(size);
  }

  void read_name() {
    size_t size = 0;
    while (size < rest().size() && (begins_name(rest()[size]) || is_digit(rest()[size]))) ++size;
    add(Token::Kind::name, std::string(rest().substr(0, size)));
    pass(size);
  }

  size_t digits(size_t at, std::string& out) const {  // with single '_' between them
    const std::string_view text = rest();
    while (at < text.size() && (is_digit(text[at]) || (text[at] == '_' && at + 1 < text.size() && is_digit(text[at + 1])))) {
      if (text[at] != '_') out += text[at];
      ++at;
    }
    return at;
  }

  void read_number() {
    const std::string_view text = rest();
    const auto digit_at = [&](size_t at) { return at < text.size() && is_digit(text[at]); };
    std::string number;
    size_t size = 0;
    if (text[0] == '0' && text.size() > 2 && std::string_view("xXoObB").find(text[1]) != std::string_view::npos) return read_based();
    size = digits(0, number);
    // After a dot a number is an index: a.0.1 holds no 0.1.
    const bool index = !tokens_.empty() && tokens_.back().kind == Token::Kind::sign && tokens_.back().text == ".";
    bool real = false;
    if (!index && size < text.size() && text[size] == '.' && digit_at(size + 1)) {
      number += '.';
      size = digits(size + 1, number);
      real = true;
    }
    if (!index && size < text.size() && (text[size] == 'e' || text[size] == 'E')) {
      const size_t sign = size + 1 < text.size() && (text[size + 1] == '+' || text[size + 1] == '-');
      if (digit_at(size + 1 + sign)) {
        number += 'e';
        if (sign) number += text[size + 1];
        size = digits(size + 1 + sign, number);
        real = true;
      }
    }
    Token token{real ? Token::Kind::real : Token::Kind::integer, number, line_};
    if (real) {
      token.real = std::strtod(number.c_str(), nullptr);  // too large: infinity, as in Python
    } else {
      if (number.size() > 36) fail("an integer is out of range");
      for (const char c : number) token.integer = token.integer * 10 + (c - '0');
    }
    tokens_.push_back(std::move(token));
    pass(size);
  }

  void read_based() {
    const char letter = char(rest()[1] | 0x20);
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : 2;
    Token token{Token::Kind::integer, "", line_};
    size_t size = 2;
    for (; size < rest().size(); ++size) {
      const char c = rest()[size], low = char(c | 0x20);
      const int digit = is_digit(c) ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : 99;
      if (c == '_') continue;
      if (digit >= base) break;
      if (__builtin_mul_overflow(token.integer, Integer(base), &token.integer) ||
          __builtin_add_overflow(token.integer, Integer(digit), &token.integer)) {
        fail("an integer is out of range");
      }
      token.text += c;
    }
    if (token.text.empty()) fail("digits are expected after '{}'", rest().substr(0, 2));
    tokens_.push_back(std::move(token));
    pass(size);
  }

  void read_string() {
    const char quote = rest()[0];
    std::string out;
    size_t at = 1;
    for (; at < rest().size() && rest()[at] != quote; ++at) {
      if (rest()[at] != '\\') {
        out += rest()[at];
      } else {
        at = read_escape(at + 1, out);
      }
    }
    if (at >= rest().size()) fail("a string is not closed");
    add(Token::Kind::string, std::move(out));
    pass(at + 1);
  }

  size_t read_escape(size_t at, std::string& out) {  // `at`: after the backslash; returns the last byte taken
    if (at >= rest().size()) fail("a string is not closed");
    const char c = rest()[at];
    const size_t plain = std::string_view("\\'\"abfnrtv").find(c);
    if (plain != std::string_view::npos) {
      out += "\\'\"\a\b\f\n\r\t\v"[plain];
      return at;
    }
    if (c == '\n') return at;
    int count = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0, base = 16;
    const bool octal = c >= '0' && c <= '7';
    if (octal) {
      base = 8;
      while (count < 3 && at + size_t(count) < rest().size() && rest()[at + size_t(count)] >= '0' && rest()[at + size_t(count)] <= '7')
        ++count;
      --at;
    }
    if (count == 0) {
      out += {'\\', c};
      return at;
    }
    const std::string_view digits = rest().substr(at + 1, size_t(count));
    uint32_t code = 0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, base);
    if (int(digits.size()) != count || result.ptr != digits.data() + digits.size()) fail("'\\{}' needs {} digits", c, count);
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) fail("'\\{}{}' is no character", c, digits);
    append_character(out, code);
    return at + size_t(count);
  }

  const std::string source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;  // what was read last ended a line
};

}  // namespace

std::vector<Token> read_tokens(const std::string& source) { return Lexer(source).read(); }

}  // namespace hadal::jinja
