#include "infer/grammar_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <optional>

namespace hadal {
namespace {

constexpr int64_t block = 32, longest_repeat = 2 * block;

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) text.replace(at, what.size(), by);
}

bool is_name(char c) { return std::isalnum(uint8_t(c)) != 0 || c == '_' || c == '-' || c == '.'; }

// Where the literal or class ends that begins at `at`.
size_t end_of_quoted(std::string_view text, size_t at) {
  const char close = text[at] == '"' ? '"' : ']';
  for (++at; at < text.size() && text[at] != close; ++at) at += text[at] == '\\';
  return std::min(at + 1, text.size());
}

struct Repeat {
  int64_t least, most;  // most: -1 for no limit
  size_t end;           // of its text
};

// {3, 500}
std::optional<Repeat> read_repeat(std::string_view text, size_t at) {
  Repeat repeat{};
  const char* end = text.data() + text.size();
  const auto [comma, wrong] = std::from_chars(text.data() + at + 1, end, repeat.least);
  if (wrong != std::errc() || end - comma < 3 || comma[0] != ',' || comma[1] != ' ') return std::nullopt;
  const auto [close, also_wrong] = std::from_chars(comma + 2, end, repeat.most);
  if (also_wrong != std::errc() || close == end || *close != '}') return std::nullopt;
  repeat.end = size_t(close + 1 - text.data());
  return repeat;
}

class Blocks {  // rules for `block` times another rule
 public:
  explicit Blocks(const std::string& text) : text_(text) {}

  std::string exactly(const std::string& rule, int64_t count) {
    if (count <= longest_repeat) return fmt::format("{}{{{}, {}}}", rule, count, count);
    const std::string whole = exactly(block_of(rule), count / block);
    return count % block == 0 ? whole : whole + ' ' + exactly(rule, count % block);
  }
  std::string at_most(const std::string& rule, int64_t count) {
    if (count <= longest_repeat) return fmt::format("{}{{0, {}}}", rule, count);
    return at_most(block_of(rule), count / block - 1) + ' ' + at_most(rule, block + count % block);
  }
  const std::string& rules() const { return rules_; }

 private:
  std::string block_of(const std::string& rule) {
    std::string& name = names_[rule];
    if (!name.empty()) return name;
    do name = fmt::format("block_{}", next_++);
    while (text_.find(name) != std::string::npos);
    rules_ += fmt::format("{} ::= (({}{{{}, {}}}))\n", name, rule, block, block);
    return name;
  }

  const std::string& text_;
  std::map<std::string, std::string> names_;
  std::string rules_;
  int64_t next_ = 0;
};

}  // namespace

std::string with_json_characters(std::string text) {
  replace_all(text, R"x( ::= (([^\"\\\r\n])))x", R"x( ::= (([^\0-\x1f\"\\\r\n]) | ("\\" [\"\\/bfnrt])))x");
  replace_all(text, R"x([^\0-\x1f\"\\\r\n])x", R"x([^\0-\x1f\"\\\ud800-\udfff])x");
  return text;
}

std::string with_short_repeats(const std::string& text) {
  Blocks blocks(text);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '"' || text[at] == '[') {
      const size_t end = end_of_quoted(text, at);
      out.append(text, at, end - at);
      at = end;
      continue;
    }
    const std::optional<Repeat> repeat = text[at] == '{' ? read_repeat(text, at) : std::nullopt;
    if (!repeat || std::max(repeat->least, repeat->most) <= longest_repeat) {
      out += text[at++];
      continue;
    }
    size_t name = out.size();
    while (name > 0 && is_name(out[name - 1])) --name;
    const std::string rule = out.substr(name);
    if (rule.empty()) {
      out += text[at++];
      continue;
    }
    out.resize(name);
    if (repeat->least > 0) out += blocks.exactly(rule, repeat->least);
    if (repeat->least > 0 && repeat->most != repeat->least) out += ' ';
    if (repeat->most < 0) out += rule + "{0, -1}";
    if (repeat->most > repeat->least) out += blocks.at_most(rule, repeat->most - repeat->least);
    at = repeat->end;
  }
  return out + blocks.rules();
}

}  // namespace hadal
