// From Oniguruma's dialect and Unicode to PCRE2's. Both agree on what word patterns use, but for the tables behind \p{..} and \s
// (see unicode_ranges.h); the few constructs that they read differently are errors.
#include <algorithm>

#include "core/error.h"
#include "model/regex.h"
#include "model/unicode.h"
#include "model/unicode_ranges.h"

namespace hadal {

namespace {

class Rewriter {
 public:
  Rewriter(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string run() {
    if (pattern_.size() > (1 << 16)) throw Error("{}: a regular expression of {} bytes; at most 65536 expected", where_, pattern_.size());
    if (valid_utf8_prefix(pattern_) != pattern_.size()) throw Error("{}: the regular expression is not valid UTF-8", where_);
    // A run of spaces inside a text would be tried from each of its spaces: quadratic. Only its first can be where a match starts.
    if (pattern_ == "\\s+$") out_ = "(?:\\G|(?<!" + spaces(false) + "))";
    while (at_ < pattern_.size()) {
      switch (pattern_[at_]) {
        case '\\':
          escape();
          break;
        case '[':
          bracket();
          break;
        case ']':
          in_class_ = false, copy(1);
          break;
        case '(':
          group();
          break;
        case '{':
          braces();
          break;
        case '&':
          ampersand();
          break;
        default:
          copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  char peek(size_t ahead) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }
  void copy(size_t bytes) { out_ += pattern_.substr(at_, bytes), at_ += bytes; }
  [[noreturn]] void refuse(std::string_view what) const {
    throw Error("{}: {} at byte {} of the regular expression is not supported: {}", where_, what, at_, pattern_);
  }

  static std::string ranges_text(std::span<const CodeRange> ranges) {
    std::string text;
    for (const auto [first, last] : ranges) text += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", first, last);
    return text;
  }
  static std::string spaces(bool negated) { return (negated ? "[^" : "[") + ranges_text(white_space) + "]"; }

  void bracket() {
    if (in_class_) refuse("a class inside a class");
    in_class_ = true;
    copy(1);
    if (peek(0) == '^') copy(1);
    if (peek(0) == ']') refuse("an empty class");
  }

  void group() {
    if (in_class_) return copy(1);
    if (peek(1) == '*') refuse("(*");
    if (peek(1) != '?') return copy(1);
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"})
      if (pattern_.substr(at_).starts_with(known)) return copy(known.size());
    refuse("this kind of group");
  }

  void braces() {
    if (in_class_) return copy(1);
    size_t end = at_ + 1;
    while (end < pattern_.size() && (std::isdigit(uint8_t(pattern_[end])) || pattern_[end] == ',')) end++;
    const bool counted = end < pattern_.size() && pattern_[end] == '}' && std::isdigit(uint8_t(peek(1)));
    const char after = end + 1 < pattern_.size() ? pattern_[end + 1] : '\0';
    if (!counted) refuse("a brace that is no {n}, {n,} or {n,m}");
    if (after == '+' || after == '?' || after == '*' || after == '{') refuse("a sign after {n,m}");
    copy(end + 1 - at_);
  }

  void ampersand() {
    if (in_class_ && peek(1) == '&') refuse("an intersection of classes");
    copy(1);
  }

  void escape() {
    const char c = peek(1);
    if (c == 'p' || c == 'P') return property();
    if (c == 's' || c == 'S' || c == 'd' || c == 'D') return short_class(c);
    if (c == 'u') return four_digits();
    if (c == 'x') return hexadecimal();
    if (c == 'r' || c == 'n' || c == 't' || c == 'f' || std::ispunct(uint8_t(c))) return copy(2);
    refuse("this escape");
  }

  void short_class(char c) {
    const bool negated = c == 'S' || c == 'D';
    at_ += 2;
    if (c == 'd' || c == 'D') return category("Nd", negated);
    if (!in_class_) {
      out_ += spaces(negated);
    } else if (!negated) {
      out_ += ranges_text(white_space);
    } else {
      uint32_t next = 0;  // the complement, range by range
      for (const auto [first, last] : white_space) {
        if (first > next) out_ += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", next, first - 1);
        next = last + 1;
      }
      out_ += fmt::format("\\x{{{:x}}}-\\x{{10ffff}}", next);
    }
  }

  void property() {
    bool negated = peek(1) == 'P';
    if (peek(2) != '{') refuse("a property without braces");
    const size_t close = pattern_.find('}', at_);
    if (close == std::string_view::npos) refuse("an unfinished property");
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    if (name.starts_with('^')) name.remove_prefix(1), negated = !negated;
    constexpr std::string_view known[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
                                          "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc", "Cf"};
    if (std::find(std::begin(known), std::end(known), name) == std::end(known)) refuse(fmt::format("the property {}", name));
    at_ = close + 1;
    category(name, negated);
  }

  void category(std::string_view name, bool negated) {
    if (in_class_ && negated) refuse("a negated property inside a class");
    std::string text = fmt::format("\\p{{{}}}", name);
    for (const auto& difference : class_differences)
      if (difference.category.starts_with(name)) text += ranges_text(difference.add);
    out_ += in_class_ ? text : (negated ? "[^" : "[") + text + "]";
  }

  void hexadecimal() {
    const size_t close = peek(2) == '{' ? pattern_.find('}', at_) : std::string_view::npos;
    if (close == std::string_view::npos || close - at_ > 9) refuse("a \\x without {..}");
    copy(close + 1 - at_);
  }

  void four_digits() {
    for (size_t i = 2; i < 6; i++)
      if (!std::isxdigit(uint8_t(peek(i)))) refuse("a \\u without four digits");
    out_ += fmt::format("\\x{{{}}}", pattern_.substr(at_ + 2, 4));
    at_ += 6;
  }

  std::string_view pattern_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string to_pcre2(std::string_view pattern, const std::string& where) { return Rewriter(pattern, where).run(); }

}  // namespace hadal
